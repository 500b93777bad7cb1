/** Text model (Llama: RMSNorm, rotary, grouped-query attention, SwiGLU) of SmolVLM / Idefics3 as graphs. */
import { product, sum, type Value } from '../../graph/graph.ts'
import {
  add,
  attention as attend,
  concat,
  gather,
  greaterOrEqual,
  less,
  arange,
  logicalAnd,
  maximum,
  matmul,
  mul,
  reshape,
  rmsNorm,
  rotary,
  silu,
  slice,
  softmax,
  transpose,
  where,
} from '../../graph/ops.ts'
import { f32 } from '../../tensor.ts'
import type { Parameters } from '../parameters.ts'
import type { SmolVlmConfig, TextConfig } from './config.ts'

const PREFIX = 'model.text_model'
/** Longest path that the rotary tables serve. */
const MAX_POSITIONS = 8192
/** Added to the scores of invisible keys: far below any score, yet finite, so that a fully masked row is no NaN. */
export const MASKED = -1e9

/** Keys and values of one layer, float32 [I, kvHeads, T, headDim]. */
export interface LayerCache {
  readonly key: Value
  readonly value: Value
}

export interface TextInputs {
  /** float32 [I, N, hidden] */
  readonly embeddings: Value
  /** int32 [I, N], depth along the path from the root of the tree. */
  readonly positions: Value
  /** float32 [I, N, T+N]: 0 where a query sees a key, MASKED where not; past keys first. */
  readonly bias: Value
  /** Keys and values computed before, one entry per layer; null for a pass of its own, which can be differentiated. */
  readonly past: readonly LayerCache[] | null
}

export interface TextOutputs {
  /** float32 [I, N, hidden], after the final norm. */
  readonly hidden: Value
  /** Keys and values of the N new tokens, when there was a past to join. */
  readonly cache: readonly LayerCache[]
}

/** Token embeddings with image features at the placeholders: rows of `features` where `featureIndex` ≥ 0. */
export function embed(params: Parameters, ids: Value, features: Value | null, featureIndex: Value | null): Value {
  const words = gather(params.weight(`${PREFIX}.embed_tokens.weight`), ids)
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
export function textModel(params: Parameters, config: SmolVlmConfig, inputs: TextInputs): TextOutputs {
  const { text } = config
  const graph = inputs.embeddings.graph
  const [cosTable, sinTable] = rotaryTables(text, MAX_POSITIONS)
  const [cos, sin] = [graph.constant(cosTable), graph.constant(sinTable)]
  const turn = (x: Value, heads: number) => rotary(x, inputs.positions, cos, sin, heads)
  const cache: LayerCache[] = []
  let x = inputs.embeddings
  for (let layer = 0; layer < text.layers; layer++) {
    const name = `${PREFIX}.layers.${layer}`
    const y = rmsNorm(x, params.weight(`${name}.input_layernorm.weight`), text.rmsEps)
    const attended = attention(params, text, `${name}.self_attn`, y, inputs.bias, inputs.past?.[layer] ?? null, turn)
    if (attended.cache) cache.push(attended.cache)
    x = add(x, attended.output)
    const z = rmsNorm(x, params.weight(`${name}.post_attention_layernorm.weight`), text.rmsEps)
    const gated = mul(silu(params.linear(`${name}.mlp.gate_proj`, z)), params.linear(`${name}.mlp.up_proj`, z))
    x = add(x, params.linear(`${name}.mlp.down_proj`, gated))
  }
  return { hidden: rmsNorm(x, params.weight(`${PREFIX}.norm.weight`), text.rmsEps), cache }
}

/** Grouped-query attention of the new tokens over past and new keys: one softmax over both. */
function attention(
  params: Parameters,
  text: TextConfig,
  name: string,
  x: Value,
  bias: Value,
  past: LayerCache | null,
  turn: (x: Value, heads: number) => Value,
): { output: Value; cache: LayerCache | null } {
  const { heads, kvHeads } = text
  const q = turn(params.linear(`${name}.q_proj`, x), heads)
  const k = turn(params.linear(`${name}.k_proj`, x), kvHeads)
  const v = params.linear(`${name}.v_proj`, x)
  const { mixed, cache } = past
    ? attendPast(text, q, k, v, bias, past)
    : { mixed: attend(q, k, v, bias, { heads, kvHeads }), cache: null }
  return { output: params.linear(`${name}.o_proj`, mixed), cache }
}

/** Attention over cached keys and the new ones; not meant to be differentiated. */
function attendPast(
  { heads, kvHeads, headDim }: TextConfig,
  q: Value,
  k: Value,
  v: Value,
  bias: Value,
  past: LayerCache,
): { mixed: Value; cache: LayerCache } {
  const repeats = heads / kvHeads
  const [images, n] = [q.dim(0), q.dim(1)]
  const perKv = (y: Value) => transpose(reshape(y, [images, n, kvHeads, headDim]), [0, 2, 1, 3])
  // The query heads of one key head are stacked along the token axis, so that keys are never repeated.
  const rows = product([repeats, n])
  const grouped = transpose(reshape(q, [images, n, kvHeads, repeats, headDim]), [0, 2, 3, 1, 4])
  const query = reshape(grouped, [images, kvHeads, rows, headDim])
  const [key, value] = [perKv(k), perKv(v)]
  const scores = (keys: Value) => matmul(query, keys, { transB: true, alpha: headDim ** -0.5 })
  const all = concat([scores(past.key), scores(key)], -1)
  const width = all.dim(-1)
  const biased = add(reshape(all, [images, kvHeads, repeats, n, width]), reshape(bias, [images, 1, 1, n, width]))
  const probs = reshape(softmax(biased), [images, kvHeads, rows, width])
  const mixed = reshape(mixPast(probs, past, value), [images, kvHeads, repeats, n, headDim])
  const merged = reshape(transpose(mixed, [0, 3, 1, 2, 4]), [images, n, heads * headDim])
  return { mixed: merged, cache: { key, value } }
}

/** Two products instead of a copy of the past next to the new values. */
function mixPast(probs: Value, past: LayerCache, value: Value): Value {
  const t = past.value.dim(2)
  const old = matmul(slice(probs, -1, 0, t), past.value)
  return add(old, matmul(slice(probs, -1, t, sum([t, value.dim(2)])), value))
}

/** The weight [vocab, hidden] of the output projection. */
export const headName = (config: SmolVlmConfig): string =>
  config.text.tied ? `${PREFIX}.embed_tokens.weight` : 'lm_head.weight'

/** Rows of hidden states [P, hidden] to logits [P, vocab]. */
export function logits(params: Parameters, config: SmolVlmConfig, hidden: Value): Value {
  return matmul(hidden, params.weight(headName(config)), { transB: true })
}

/** Bias [V] that makes image placeholders impossible to sample. */
export function placeholderBan(config: SmolVlmConfig, banned: readonly number[]): Float32Array {
  const ban = new Float32Array(config.text.vocab)
  for (const id of banned) if (id < ban.length) ban[id] = MASKED
  return ban
}

/** cos and sin [P, headDim/2] in float32 arithmetic, as transformers computes them. */
function rotaryTables({ headDim, ropeTheta }: TextConfig, positions: number) {
  const half = headDim / 2
  const cos = new Float32Array(positions * half)
  const sin = new Float32Array(positions * half)
  for (let d = 0; d < half; d++) {
    const frequency = Math.fround(1 / Math.fround(ropeTheta ** Math.fround((2 * d) / headDim)))
    for (let p = 0; p < positions; p++) {
      const angle = Math.fround(p * frequency)
      cos[p * half + d] = Math.cos(angle)
      sin[p * half + d] = Math.sin(angle)
    }
  }
  return [f32(cos, [positions, half]), f32(sin, [positions, half])] as const
}
