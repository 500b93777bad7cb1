/** Llama-style text model (RMSNorm, rotary, grouped-query attention, SwiGLU) as a graph. */
import type { Value } from '../graph/graph.ts'
import {
  add,
  arange,
  gather,
  greaterOrEqual,
  less,
  logicalAnd,
  maximum,
  mul,
  reshape,
  rmsNorm,
  silu,
  where,
} from '../graph/ops.ts'
import { type Join, type LayerCache, textAttention } from './attention.ts'
import type { Parameters } from './parameters.ts'
import { type Turn, turnBy } from './rotary.ts'
import type { TextArchitecture } from './text-config.ts'

/** Added to the scores of invisible keys: far below any score, yet finite, so that a fully masked row is no NaN. */
export const MASKED = -1e9

export interface TextInputs {
  /** float32 [I, N, hidden] */
  readonly embeddings: Value
  /** int32 [I, N], or [3, I, N] with M-RoPE: where a token stands on its path from the root of the tree. */
  readonly positions: Value
  /** float32 [I, N, T+N]: 0 where a query sees a key, MASKED where not; past keys first. */
  readonly bias: Value
  /** Keys and values computed before, one entry per layer; null for a pass of its own, which can be differentiated. */
  readonly past: readonly LayerCache[] | null
  /** How keys and values meet those of the past. */
  readonly join?: Join
}

export interface TextOutputs {
  /** float32 [I, N, hidden], after the final norm. */
  readonly hidden: Value
  /** Keys and values of the N new tokens (`join` 'beside') or of all (`append`), when there was a past to join. */
  readonly cache: readonly LayerCache[]
}

/** Token embeddings with image features at the placeholders: rows of `features` where `featureIndex` ≥ 0. */
export function embed(
  params: Parameters,
  text: TextArchitecture,
  ids: Value,
  features: Value | null,
  featureIndex: Value | null,
): Value {
  const words = params.rows(`${text.prefix}.embed_tokens.weight`, ids)
  if (!features || !featureIndex) return words
  const isImage = reshape(greaterOrEqual(featureIndex, 0), [...ids.dims, 1])
  return where(isImage, gather(features, maximum(featureIndex, 0)), words)
}

/**
 * Visibility in a packed token tree (DESIGN §3). Tokens are in depth-first order; `ends` int32 [I, N] is the index after
 * the last descendant of each token. Query i sees key j iff j is i or one of its ancestors: j ≤ i < ends[j].
 *
 * @returns float32 [I, N, N] bias.
 */
export function treeBias(ends: Value): Value {
  const [images, n] = [ends.dim(0), ends.dim(1)]
  const query = reshape(arange(ends, 1), [1, n, 1])
  const key = reshape(arange(ends, 1), [1, 1, n])
  const visible = logicalAnd(greaterOrEqual(query, key), less(query, reshape(ends, [images, 1, n])))
  return where(visible, 0, MASKED)
}

/** All layers and the final norm. */
export function textModel(params: Parameters, text: TextArchitecture, inputs: TextInputs): TextOutputs {
  const turn = turnBy(text, inputs.positions)
  const cache: LayerCache[] = []
  let x = inputs.embeddings
  for (let layer = 0; layer < text.layers; layer++) {
    const before = x
    const step = params.graph.segment([before], () => textLayer(params, text, layer, before, inputs, turn))
    if (step.cache) cache.push(step.cache)
    x = step.output
  }
  return { hidden: rmsNorm(x, params.weight(`${text.prefix}.norm.weight`), text.rmsEps), cache }
}

function textLayer(
  params: Parameters,
  text: TextArchitecture,
  layer: number,
  x: Value,
  inputs: TextInputs,
  turn: Turn,
): { output: Value; cache: LayerCache | null } {
  const name = `${text.prefix}.layers.${layer}`
  const y = rmsNorm(x, params.weight(`${name}.input_layernorm.weight`), text.rmsEps)
  const past = inputs.past ? { ...inputs.past[layer]!, join: inputs.join ?? 'beside' } : null
  const { output, cache } = textAttention(params, text, `${name}.self_attn`, y, inputs.bias, past, turn)
  const h = add(x, output)
  const z = rmsNorm(h, params.weight(`${name}.post_attention_layernorm.weight`), text.rmsEps)
  const gated = mul(silu(params.linear(`${name}.mlp.gate_proj`, z)), params.linear(`${name}.mlp.up_proj`, z))
  return { output: add(h, params.linear(`${name}.mlp.down_proj`, gated)), cache }
}

/** The weight [vocab, hidden] of the output projection. */
export const headName = ({ tied, prefix }: TextArchitecture): string =>
  tied ? `${prefix}.embed_tokens.weight` : 'lm_head.weight'

/** Rows of hidden states [P, hidden] to logits [P, vocab]. */
export function logits(params: Parameters, text: TextArchitecture, hidden: Value): Value {
  return params.product(headName(text), hidden)
}
