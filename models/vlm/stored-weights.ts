/** The weights of a checkpoint folder under the canonical names of their family. */
import { CheckpointError } from '../io/checkpoint-error.ts'
import { assertFinite, type Checkpoint } from '../io/safetensors.ts'
import type { FrozenWeight, FrozenWeights } from '../io/stored-tensor.ts'
import type { ExpectedWeight } from '../layers/weights.ts'
import type { HostTensor, Weights } from '../tensor.ts'
import type { Family } from './family.ts'

/** Canonical name → name in the files. Throws a `CheckpointError` when two tensors have one canonical name. */
export function storedNames({ canonicalName }: Family, checkpoint: Checkpoint): ReadonlyMap<string, string> {
  const stored = new Map<string, string>()
  for (const name of checkpoint.names()) {
    const canonical = canonicalName(name)
    const other = stored.get(canonical)
    if (other !== undefined)
      throw new CheckpointError(`"${other}" and "${name}" are the same weight`, { file: checkpoint.dir })
    stored.set(canonical, name)
  }
  return stored
}

/** Throws a `CheckpointError` that lists missing and mis-shaped tensors; further tensors are ignored. */
export function checkTensors(
  expected: readonly ExpectedWeight[],
  checkpoint: Checkpoint,
  stored: ReadonlyMap<string, string>,
): void {
  const problems: string[] = []
  for (const { name, dims } of expected) {
    const own = stored.get(name)
    if (own === undefined) problems.push(`${name} is missing`)
    else if (checkpoint.info(own).dims.join() !== dims.join()) {
      problems.push(`${own} is [${checkpoint.info(own).dims.join(', ')}], config.json asks for [${dims.join(', ')}]`)
    }
  }
  if (problems.length === 0) return
  const shown = problems.slice(0, 10).join('; ')
  const more = problems.length > 10 ? `; and ${problems.length - 10} more` : ''
  throw new CheckpointError(
    `the weights do not fit config.json, so that one of them must be replaced: ${shown}${more}`,
    { file: checkpoint.dir },
  )
}

/**
 * All expected weights: those that are trained as float32, the others where they are stored. Throws a `CheckpointError`
 * when one is missing, mis-shaped or not finite.
 */
export async function readWeights(
  expected: readonly ExpectedWeight[],
  checkpoint: Checkpoint,
  stored: ReadonlyMap<string, string>,
  trained: (name: string) => boolean,
): Promise<{ trainable: Weights; frozen: FrozenWeights }> {
  checkTensors(expected, checkpoint, stored)
  const trainable: Record<string, HostTensor<'float32'>> = {}
  const frozen: Record<string, FrozenWeight> = {}
  for (const { name } of expected) {
    const own = stored.get(name)!
    if (trained(name)) trainable[name] = await readFloats(checkpoint, own)
    else frozen[name] = (await checkpoint.stored(own)) ?? (await readFloats(checkpoint, own))
  }
  return { trainable, frozen }
}

async function readFloats(checkpoint: Checkpoint, name: string): Promise<HostTensor<'float32'>> {
  const tensor = await checkpoint.readF32(name)
  assertFinite(name, tensor, checkpoint.info(name).file)
  return tensor
}
