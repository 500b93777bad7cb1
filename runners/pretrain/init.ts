/** Random initial weights of a SmolVLM model that is trained from nothing. */
import { sizeOf, type HostTensor, type Weights } from '../../models/tensor.ts'
import type { SmolVlmConfig } from '../../models/vlm/smolvlm/config.ts'
import { expectedWeights } from '../../models/vlm/smolvlm/weights.ts'
import { Random } from '../world/random.ts'

/**
 * Normal with variance 1/fan-in; projections back into the residual stream are scaled by 1/√(2·layers) (GPT-2);
 * embeddings 0.02; norms 1, biases 0.
 */
export function initialWeights(config: SmolVlmConfig, seed: number): Weights {
  return Object.fromEntries(expectedWeights(config).map(({ name, dims }) => [name, initial(config, name, dims, seed)]))
}

function initial(config: SmolVlmConfig, name: string, dims: readonly number[], seed: number): HostTensor<'float32'> {
  const size = sizeOf(dims)
  const make = (value: (i: number) => number) => ({
    dtype: 'float32' as const,
    dims,
    data: Float32Array.from({ length: size }, (_, i) => value(i)),
  })
  if (name.endsWith('bias')) return make(() => 0)
  if (dims.length === 1) return make(() => 1)
  const random = new Random('pretrain', seed, name)
  return make(() => normal(random) * scale(config, name, dims))
}

function scale(config: SmolVlmConfig, name: string, dims: readonly number[]): number {
  if (/embed_tokens|position_embedding|lm_head/.test(name)) return 0.02
  const fanIn = (sizeOf(dims) / dims[0]!) ** -0.5
  const layers = name.includes('vision_model') ? config.vision.layers : config.text.layers
  return /(out_proj|o_proj|fc2|down_proj)\.weight$/.test(name) ? fanIn / Math.sqrt(2 * layers) : fanIn
}

/** Box–Muller. */
function normal(random: Random): number {
  return Math.sqrt(-2 * Math.log(1 - random.float())) * Math.cos(2 * Math.PI * random.float())
}
