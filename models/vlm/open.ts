/** A checkpoint folder of any family as a model on the calling thread. */
import { openCheckpoint } from '../io/safetensors.ts'
import type { LoraShape } from '../layers/parameters.ts'
import { openDevice } from '../runtime/device.ts'
import type { SessionOptions } from '../runtime/session.ts'
import { f32, type Weights } from '../tensor.ts'
import type { Architecture } from './family.ts'
import type { LoadOptions } from './load-options.ts'
import { createLora, readAdapter } from './lora.ts'
import { VlmModel } from './model.ts'
import { Network } from './network.ts'
import { familyOf } from './registry.ts'
import { readWeights, storedNames } from './stored-weights.ts'

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
    const weights = await readWeights(architecture.weights, checkpoint, names)
    const { frozen, trainable, lora } = await split(architecture, weights, options)
    const dims = new Map(Object.entries(trainable).map(([name, t]) => [name, t.dims]))
    const context = { architecture, frozen, trainable: dims, lora }
    const network = new Network(context, trainable, { ...sessions, device, threads: options.threads ?? 0 })
    return new VlmModel(network, processor, device, {
      base: lora ? withoutAdapter(trainable) : trainable,
      visionTrained: Object.keys(trainable).some((name) => architecture.visionWeights.test(name)),
      total: Object.values(weights).reduce((n, t) => n + t.data.length, 0),
      storedNames: names,
      rollouts: options.rollouts ?? 'fp32',
    })
  } finally {
    await checkpoint.close()
  }
}

/** Weights that change at every step cannot be rounded once. */
function checkRollouts({ rollouts = 'fp32', train }: LoadOptions): void {
  if (rollouts !== 'fp32' && train?.kind === 'full' && train.part === undefined)
    throw new RangeError(
      `rollouts in ${rollouts} need a frozen text model, and here every weight is trained: set model.rollouts=fp32, or model.train to lora or vision`,
    )
}

/** Frozen and trainable parts by training mode. */
async function split(
  { text, visionWeights }: Architecture,
  weights: Weights,
  { adapter, train = { kind: 'none' } }: LoadOptions,
): Promise<{ frozen: Weights; trainable: Weights; lora: LoraShape | null }> {
  if (adapter !== undefined) {
    if (train.kind === 'full') throw new Error('full fine-tuning starts from merged weights, not from an adapter')
    const { shape, weights: trainable } = await readAdapter(adapter)
    return { frozen: weights, trainable, lora: shape }
  }
  switch (train.kind) {
    case 'none':
      return { frozen: weights, trainable: {}, lora: null }
    case 'full':
      return { ...partition(weights, train.part === 'vision' ? visionWeights : /(?:)/), lora: null }
    case 'lora': {
      const linears = Object.entries(weights)
        .filter(([name]) => name.startsWith(`${text.prefix}.`))
        .map(([name, { dims }]) => ({ name, dims }))
      const { shape, weights: trainable } = createLora(linears, train)
      return { frozen: weights, trainable, lora: shape }
    }
  }
}

/** The reference of the KL term: an adapter whose B is zero changes nothing. */
function withoutAdapter(adapter: Weights): Weights {
  const off = ([name, t]: [string, Weights[string]]) =>
    [name, name.endsWith('.lora_B.weight') ? f32(new Float32Array(t.data.length), t.dims) : t] as const
  return Object.fromEntries(Object.entries(adapter).map(off))
}

function partition(weights: Weights, chosen: RegExp): { frozen: Weights; trainable: Weights } {
  const [trainable, frozen] = [true, false].map((wanted) =>
    Object.fromEntries(Object.entries(weights).filter(([name]) => chosen.test(name) === wanted)),
  )
  return { frozen: frozen!, trainable: trainable! }
}
