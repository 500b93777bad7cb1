/** A checkpoint folder of any family as a model on the calling thread. */
import type { FrozenWeights } from '../io/stored-tensor.ts'
import { openCheckpoint } from '../io/safetensors.ts'
import type { LoraShape } from '../layers/parameters.ts'
import { openDevice } from '../runtime/device.ts'
import type { SessionOptions } from '../runtime/session.ts'
import { f32, sizeOf, type Weights } from '../tensor.ts'
import type { Architecture } from './family.ts'
import type { LoadOptions } from './load-options.ts'
import { createLora, readAdapter } from './lora.ts'
import { VlmModel } from './model.ts'
import { Network } from './network.ts'
import { familyOf } from './registry.ts'
import { readWeights, storedNames } from './stored-weights.ts'
import { holdingsFor } from './weight-holding.ts'

/**
 * Throws CheckpointError when a file is missing, a tensor does not fit or a weight is not finite, DeviceError when the
 * device cannot compute, RangeError when rollouts cannot have the precision asked for.
 */
export async function openModel(
  dir: string,
  options: LoadOptions = {},
  sessions: Pick<SessionOptions, 'profile'> = {},
): Promise<VlmModel> {
  checkRollouts(options)
  const device = await openDevice(options.device)
  const family = await familyOf(dir)
  const { architecture, processor } = await family.open(dir)
  const checkpoint = await openCheckpoint(dir)
  try {
    const names = storedNames(family, checkpoint)
    const read = await readWeights(architecture.weights, checkpoint, names, trainedNames(architecture, options))
    const { frozen, trainable, lora } = await withAdapter(architecture, read, options)
    const total = architecture.weights.reduce((n, { dims }) => n + sizeOf(dims), 0)
    const dims = new Map(Object.entries(trainable).map(([name, t]) => [name, t.dims]))
    // Other devices hold weights in memory of their own.
    const holdings = holdingsFor(total, device === 'cpu' ? options.memory : 'fast', options.recompute)
    const context = { architecture, frozen, trainable: dims, lora, holdings }
    const network = new Network(context, trainable, { ...sessions, device, threads: options.threads ?? 0 })
    return new VlmModel(network, processor, device, {
      base: lora ? withoutAdapter(trainable) : trainable,
      visionTrained: Object.keys(trainable).some((name) => architecture.visionWeights.test(name)),
      total,
      storedNames: names,
      rollouts: options.rollouts ?? 'fp32',
    })
  } finally {
    await checkpoint.close()
  }
}

/** Weights that change at every step cannot be rounded once. */
function checkRollouts({ rollouts = 'fp32', train, device = 'auto' }: LoadOptions): void {
  if (rollouts !== 'fp32' && train?.kind === 'full' && train.part === undefined)
    throw new RangeError(
      `rollouts in ${rollouts} need a frozen text model, and here every weight is trained: set model.rollouts=fp32, or model.train to lora or vision`,
    )
  if (rollouts === 'int8' && device !== 'auto' && device !== 'cpu')
    throw new RangeError(`rollouts in int8 are for the CPU, and the device is ${device}: set model.rollouts=q4 or fp32`)
}

/** Which weights of the checkpoint an update changes. */
function trainedNames(
  { visionWeights }: Architecture,
  { adapter, train = { kind: 'none' } }: LoadOptions,
): (name: string) => boolean {
  if (train.kind !== 'full') return () => false
  if (adapter !== undefined) throw new Error('full fine-tuning starts from merged weights, not from an adapter')
  return train.part === 'vision' ? (name) => visionWeights.test(name) : () => true
}

/** Adapters are what is trained, where there are any. */
async function withAdapter(
  { text, weights }: Architecture,
  { frozen, trainable }: { readonly frozen: FrozenWeights; readonly trainable: Weights },
  { adapter, train = { kind: 'none' } }: LoadOptions,
): Promise<{ frozen: FrozenWeights; trainable: Weights; lora: LoraShape | null }> {
  if (adapter !== undefined) {
    const read = await readAdapter(adapter)
    return { frozen, trainable: read.weights, lora: read.shape }
  }
  if (train.kind !== 'lora') return { frozen, trainable, lora: null }
  const linears = weights.filter(({ name }) => name.startsWith(`${text.prefix}.`))
  const created = createLora(linears, train)
  return { frozen, trainable: created.weights, lora: created.shape }
}

/** The reference of the KL term: an adapter whose B is zero changes nothing. */
function withoutAdapter(adapter: Weights): Weights {
  const off = ([name, t]: [string, Weights[string]]) =>
    [name, name.endsWith('.lora_B.weight') ? f32(new Float32Array(t.data.length), t.dims) : t] as const
  return Object.fromEntries(Object.entries(adapter).map(off))
}
