/** The model of a run, and its committed versions as checkpoints in the Hugging Face layout. */
import { cp, mkdir, readdir, rename, rm } from 'node:fs/promises'
import { join } from 'node:path'
import type { Config } from '../../configs/schema.ts'
import { openCheckpoint, writeSafetensors } from '../../models/io/safetensors.ts'
import type { Model } from '../../models/model.ts'
import type { Weights } from '../../models/tensor.ts'
import { loadModel } from '../../models/vlm/load.ts'
import { adaptedLayers, mergeLora, writeAdapter, type Adapter } from '../../models/vlm/lora.ts'
import { familyOf } from '../../models/vlm/registry.ts'
import { storedNames } from '../../models/vlm/stored-weights.ts'
import { checkRunFits } from '../memory/plan.ts'
import { trainMode } from './train-mode.ts'

/** Throws MemoryError, before anything is allocated, when the model does not fit; else as `loadModel`. */
export async function loadRunModel(config: Config): Promise<Model> {
  const { model, seed, train } = config
  const { dir, device, threads, memory, rollouts } = model
  if (rollouts === 'auto') throw new Error('model.rollouts is still "auto": decideRollouts comes before loading')
  await checkRunFits(config)
  const how = { memory, recompute: train.recompute, rollouts, train: trainMode(model, seed) }
  return loadModel(dir, { device, threads, ...how })
}

const WEIGHTS = /\.safetensors$|\.safetensors\.index\.json$|\.bin$|\.pth?$/

/** As what the weights of a version are written: what was trained, or a whole checkpoint in any case. */
export type CheckpointKind = 'trained' | 'whole'

/**
 * Writes the weights of a version: a PEFT adapter (LoRA as `trained`), or a whole checkpoint, into which an adapter is
 * merged. The folder appears complete or not at all.
 */
export async function writeCheckpoint(
  to: string,
  weights: Weights,
  { model }: Config,
  kind: CheckpointKind = 'trained',
): Promise<void> {
  const partial = `${to}.partial`
  await rm(partial, { recursive: true, force: true })
  await mkdir(partial, { recursive: true })
  const adapter = { shape: model.lora, weights }
  try {
    if (model.train !== 'lora') await writeWhole(partial, weights, model.dir)
    else if (kind === 'trained') await writeAdapter(partial, adapter, model.hub?.replace(/@.*/, '') ?? model.dir)
    else await writeWhole(partial, await mergedLayers(adapter, model.dir), model.dir)
    await rm(to, { recursive: true, force: true })
    await rename(partial, to)
  } catch (error) {
    await rm(partial, { recursive: true, force: true })
    throw error
  }
}

/** The layers of the base that an adapter changes, changed. */
async function mergedLayers(adapter: Adapter, base: string): Promise<Weights> {
  const checkpoint = await openCheckpoint(base)
  try {
    const stored = storedNames(await familyOf(base), checkpoint)
    const names = adaptedLayers(adapter)
    const read = (name: string) => checkpoint.readF32(stored.get(name) ?? name)
    const layers = await Promise.all(names.map(async (name) => [name, await read(name)] as const))
    return mergeLora(Object.fromEntries(layers), adapter)
  } finally {
    await checkpoint.close()
  }
}

/** Configuration, tokenizer, processor: every file of a checkpoint folder but its weights. */
export async function copySettings(base: string, to: string): Promise<void> {
  for (const entry of await readdir(base, { withFileTypes: true })) {
    if (!(entry.isFile() || entry.isSymbolicLink()) || WEIGHTS.test(entry.name)) continue
    // In the cache of the hub, files are links.
    await cp(join(base, entry.name), join(to, entry.name), { dereference: true })
  }
}

/** Everything of the base but its weights, and the new weights under the names that the base has for them. */
async function writeWhole(to: string, weights: Weights, base: string): Promise<void> {
  await copySettings(base, to)
  const checkpoint = await openCheckpoint(base)
  try {
    const stored = storedNames(await familyOf(base), checkpoint)
    const own = Object.fromEntries(Object.entries(weights).map(([name, t]) => [stored.get(name) ?? name, t]))
    const untouched = checkpoint.names().filter((name) => !(name in own))
    const rest = await Promise.all(untouched.map(async (name) => [name, await checkpoint.readF32(name)] as const))
    await writeSafetensors(join(to, 'model.safetensors'), { ...Object.fromEntries(rest), ...own })
  } finally {
    await checkpoint.close()
  }
}
