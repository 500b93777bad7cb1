/** A checkpoint folder of the SmolVLM / Idefics3 family as a model on the calling thread. */
import { assertFinite, openCheckpoint } from '../../io/safetensors.ts'
import { openDevice } from '../../runtime/device.ts'
import { f32, type HostTensor, type Weights } from '../../tensor.ts'
import type { LoadOptions } from '../load-options.ts'
import { createLora, readAdapter } from '../lora.ts'
import type { LoraShape } from '../parameters.ts'
import { loadSmolVlmConfig, type SmolVlmConfig } from './config.ts'
import type { GraphContext } from './graphs.ts'
import { SmolVlmModel } from './model.ts'
import { Network } from './network.ts'
import { loadSmolVlmProcessor, type SmolVlmProcessor } from './processor.ts'
import { visionPositionIds } from './vision-positions.ts'
import { checkTensors, expectedWeights } from './weights.ts'

/**
 * Throws CheckpointError when a file is missing, a tensor does not fit or a weight is not finite, DeviceError when the
 * device cannot compute.
 */
export async function loadSmolVlm(dir: string, options: LoadOptions = {}): Promise<SmolVlmModel> {
  const device = await openDevice(options.device)
  const config = await loadSmolVlmConfig(dir)
  const processor = await loadSmolVlmProcessor(dir, config)
  const weights = await readWeights(dir, config)
  const { frozen, trainable, lora } = await split(weights, options)
  const context = graphContext(config, processor, frozen, trainable, lora)
  const network = new Network(context, trainable, { device, threads: options.threads ?? 0 })
  const visionTrained = Object.keys(trainable).some((n) => /^model\.(vision_model|connector)\./.test(n))
  const total = Object.values(weights).reduce((n, t) => n + t.data.length, 0)
  return new SmolVlmModel(
    network,
    processor,
    device,
    lora ? withoutAdapter(trainable) : trainable,
    visionTrained,
    total,
  )
}

/** Everything that the graphs of a model are built from. */
export function graphContext(
  config: SmolVlmConfig,
  processor: SmolVlmProcessor,
  frozen: Weights,
  trainable: Weights,
  lora: LoraShape | null,
): GraphContext {
  const { vision, imageTokenId } = config
  const special = ['<image>', '<fake_token_around_image>', '<global-img>'].map((t) => processor.tokenizer.idOf(t))
  return {
    config,
    frozen,
    trainable: new Map(Object.entries(trainable).map(([name, t]) => [name, t.dims])),
    lora,
    patchPositions: (rows) => visionPositionIds(rows, Math.floor(vision.image / vision.patch)),
    banned: [imageTokenId, ...special.filter((id) => id !== undefined)],
  }
}

async function readWeights(dir: string, config: SmolVlmConfig): Promise<Weights> {
  const checkpoint = await openCheckpoint(dir)
  try {
    checkTensors(config, checkpoint)
    const weights: Record<string, HostTensor<'float32'>> = {}
    for (const { name } of expectedWeights(config)) {
      const tensor = await checkpoint.readF32(name)
      assertFinite(name, tensor, checkpoint.info(name).file)
      weights[name] = tensor
    }
    return weights
  } finally {
    await checkpoint.close()
  }
}

/** Frozen and trainable parts by training mode. */
async function split(
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
      return { ...partition(weights, new RegExp(train.only ?? '')), lora: null }
    case 'lora': {
      const linears = Object.entries(weights).map(([name, { dims }]) => ({ name, dims }))
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

function partition(weights: Weights, only: RegExp): { frozen: Weights; trainable: Weights } {
  const [trainable, frozen] = [true, false].map((wanted) =>
    Object.fromEntries(Object.entries(weights).filter(([name]) => only.test(name) === wanted)),
  )
  if (Object.keys(trainable!).length === 0) throw new Error(`no weight of the model matches ${only}`)
  return { frozen: frozen!, trainable: trainable! }
}
