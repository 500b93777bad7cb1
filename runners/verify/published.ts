/**
 * Digests of the published goldens. Recomputing a golden cannot notice a changed value that nothing depends on (an old
 * logprob under a clip, padding, a remark): its digest can. Goldens of other seeds or library versions have none.
 */
import { createHash } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { z } from 'zod'
import type { Verified } from '../../models/losses/verify-grpo.ts'
import { readJson, readTextIfPresent } from '../../models/io/json-file.ts'
import { filesUnder, type GoldenUnit, isVerifiable, POSITIONS_FILE } from './find-goldens.ts'

export const publishedSchema = z.strictObject({
  /** What the set was generated with, from its `deviations.json`. */
  seed: z.int(),
  libraries: z.record(z.string(), z.string()),
  /** SHA-256 of `deviations.json`, and of the file beside the variants of a family. */
  deviations: z.string(),
  positions: z.string(),
  /** Unit (its label in the set) → file in it → SHA-256. */
  units: z.record(z.string(), z.record(z.string(), z.string())),
})
export type Published = z.infer<typeof publishedSchema>

export const readPublished = (): Promise<Published> =>
  readJson(join(import.meta.dirname, 'published.json'), publishedSchema)

/** SHA-256 of every file under a folder, by relative path; texts for people are left out. */
export async function digestsOf(dir: string): Promise<Record<string, string>> {
  const files = (await filesUnder(dir)).filter((path) => !path.endsWith('.md'))
  return Object.fromEntries(
    await Promise.all(files.map(async (path) => [path, await sha256(join(dir, path))] as const)),
  )
}

export async function sha256(file: string): Promise<string> {
  return digest(await readFile(file))
}

const digest = (content: Buffer | string): string => createHash('sha256').update(content).digest('hex')

/**
 * Compares the files of the units that are published ones: those that share most of their files with one, wherever they
 * lie and however the folder is called. A file whose digest differs fails with the quantity `file`.
 */
export async function* verifyDigests(units: readonly GoldenUnit[], root: string | null): AsyncGenerator<Verified> {
  const published = await readPublished()
  let known = 0
  const folders = units.filter(isVerifiable)
  for (const { dir, label } of folders) {
    const own = await digestsOf(dir)
    const expected = closest(own, published)
    if (!expected) continue
    known++
    for (const [path, found] of Object.entries(own)) {
      if (expected[path] !== undefined) yield compared(`${label}/${path}`, found === expected[path])
    }
  }
  if (known === 0 || known < folders.length) return
  const single = units.filter((u) => u.kind === 'vision-positions')
  for (const { dir, label } of single)
    yield compared(`${label}/${POSITIONS_FILE}`, (await sha256(join(dir, POSITIONS_FILE))) === published.positions)
  const deviations = root === null ? undefined : await readTextIfPresent(join(root, 'deviations.json'))
  if (deviations !== undefined) yield compared('deviations.json', digest(deviations) === published.deviations)
}

const compared = (path: string, equal: boolean): Verified => ({
  case: path,
  quantity: 'file',
  maxError: equal ? 0 : 1,
  tolerance: 0,
  pass: equal,
})

/** The published unit that more than half of the files are equal to. */
function closest(own: Readonly<Record<string, string>>, { units }: Published): Record<string, string> | undefined {
  const half = Object.keys(own).length / 2
  return Object.values(units).find(
    (files) => Object.entries(own).filter(([path, found]) => files[path] === found).length > half,
  )
}
