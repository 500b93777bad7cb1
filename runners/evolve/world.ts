/** What a run learns from and is measured with: the user's folders, or rendered scenes. */
import { existsSync } from 'node:fs'
import { mkdir, rename, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { readEvalSet } from '../../actors/eval-set.ts'
import type { EvalSet } from '../../actors/evaluator.ts'
import type { Config } from '../../configs/schema.ts'
import { writeEvalSet, writeImages } from '../world/dataset.ts'
import { scanImages, type Scan } from './images.ts'

export interface RunWorld extends Scan {
  /** Where the images come from, for people. */
  readonly source: string
  /** The held-out set first, then the one of the domain that the model was trained on; empty without any. */
  readonly sets: readonly EvalSet[]
}

/** Renders what is missing under `out`, reads what is given, and checks it. */
export async function prepareWorld(config: Config, out: string, signal: AbortSignal): Promise<RunWorld> {
  const { images, world, eval: evaluation, seed } = config
  const rendered = images.dir === null
  const folder = join(out, 'world')
  const dir = images.dir ?? join(folder, 'images')
  const { severity } = world
  if (rendered) {
    await once(dir, (to) => writeImages(to, { domain: 'shifted', count: world.images, seed, severity }))
  }
  const held = evaluation.file ?? (rendered ? await renderEvalSet(folder, 'held-out', config) : null)
  const clean = evaluation.clean ?? (rendered ? await renderEvalSet(folder, 'clean', config) : null)
  signal.throwIfAborted()
  const scan = await scanImages(dir, { ...images, seed, signal })
  const sets: EvalSet[] = []
  if (held !== null) sets.push({ name: 'held-out', questions: await readEvalSet(held) })
  if (clean !== null) sets.push({ name: 'clean', questions: await readEvalSet(clean) })
  return { ...scan, source: rendered ? 'rendered scenes of a shifted domain' : dir, sets }
}

async function renderEvalSet(folder: string, name: 'held-out' | 'clean', { world }: Config): Promise<string> {
  const dir = join(folder, name)
  const { evalImages: images, seed, severity } = world
  const domain = name === 'clean' ? 'clean' : 'shifted'
  await once(dir, (to) => writeEvalSet(to, { domain, images, seed, severity }))
  return join(dir, 'eval.jsonl')
}

/** Makes a folder whole or not at all; one that exists is complete. */
async function once(dir: string, make: (to: string) => Promise<unknown>): Promise<void> {
  if (existsSync(dir)) return
  const partial = `${dir}.partial`
  await rm(partial, { recursive: true, force: true })
  await mkdir(partial, { recursive: true })
  await make(partial)
  await rename(partial, dir)
}
