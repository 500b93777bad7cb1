/** What of a goldens folder can be verified, and what cannot. */
import { readdir } from 'node:fs/promises'
import { basename, dirname, join, relative } from 'node:path'
import { z } from 'zod'
import { isMissing, readJson, readTextIfPresent, reasonOf } from '../../models/io/json-file.ts'
import { modelTypes } from '../../models/vlm/registry.ts'

/** A folder that is verified on its own. `label` is its path from the root of the goldens. */
export type GoldenUnit = { readonly dir: string; readonly label: string } & (
  | { readonly kind: VerifiableKind | 'vision-positions' }
  /** Of a family without a verifier, or damaged. */
  | { readonly kind: 'unsupported' | 'unreadable'; readonly reason: string }
)
/** A variant of a model family, losses without a model, or pictures. */
type VerifiableKind = 'variant' | 'grpo' | 'images'

/** Whether a unit is a folder of its own in the published set. */
export const isVerifiable = ({ kind }: GoldenUnit): boolean => ['variant', 'grpo', 'images'].includes(kind)

export interface FoundGoldens {
  /** The folder that holds `images/`, or null. */
  readonly root: string | null
  readonly units: readonly GoldenUnit[]
}

/** Deepest variant below a goldens folder: family/variant. */
const DEPTH = 3
export const POSITIONS_FILE = 'vision_position_buckets.json'

/** Everything under `dir`, a goldens folder or any family or variant in it; `images/` is looked for upwards. */
export async function findGoldens(dir: string): Promise<FoundGoldens> {
  const root = await findRoot(dir)
  const base = root ?? dirname(dir)
  const units: GoldenUnit[] = []
  await collect(dir, DEPTH, units, (path) => relative(base, path) || basename(path))
  const images = root === null ? null : join(root, 'images')
  if (images !== null && units.some((u) => u.kind === 'variant') && !units.some((u) => u.kind === 'images'))
    units.unshift({ kind: 'images', dir: images, label: 'images' })
  return { root, units }
}

async function findRoot(from: string): Promise<string | null> {
  for (let dir = from; ; dir = dirname(dir)) {
    if ((await readTextIfPresent(join(dir, 'images', 'images.json'))) !== undefined) return dir
    if (dirname(dir) === dir) return null
  }
}

async function collect(
  dir: string,
  depth: number,
  units: GoldenUnit[],
  label: (path: string) => string,
): Promise<void> {
  const entries = await readdir(dir, { withFileTypes: true })
  const names = new Set(entries.map((e) => e.name))
  if (names.has('checkpoint') || names.has('cases')) return void units.push(await variant(dir, label(dir)))
  if (names.has('cases.json')) return void units.push({ kind: 'grpo', dir, label: label(dir) })
  if (names.has('images.json')) return void units.push({ kind: 'images', dir, label: label(dir) })
  if (names.has(POSITIONS_FILE)) units.push({ kind: 'vision-positions', dir, label: label(dir) })
  if (depth === 0) return
  const folders = entries.filter((e) => e.isDirectory() && !e.name.startsWith('.')).map((e) => e.name)
  for (const name of folders.toSorted()) await collect(join(dir, name), depth - 1, units, label)
}

async function variant(dir: string, label: string): Promise<GoldenUnit> {
  let type: string
  try {
    const file = join(dir, 'checkpoint', 'config.json')
    type = (await readJson(file, z.looseObject({ model_type: z.string() }))).model_type
  } catch (error) {
    return { kind: 'unreadable', dir, label, reason: reasonOf(error) }
  }
  if (modelTypes.includes(type)) return { kind: 'variant', dir, label }
  return {
    kind: 'unsupported',
    dir,
    label,
    reason: `the architecture "${type}" is not supported (supported: ${modelTypes.join(', ')})`,
  }
}

/** Paths of all files under a folder, relative to it, sorted. */
export async function filesUnder(dir: string): Promise<string[]> {
  try {
    const entries = await readdir(dir, { withFileTypes: true, recursive: true })
    const files = entries.filter((e) => e.isFile()).map((e) => relative(dir, join(e.parentPath, e.name)))
    return files.map((path) => path.replaceAll('\\', '/')).toSorted()
  } catch (error) {
    if (isMissing(error)) return []
    throw error
  }
}
