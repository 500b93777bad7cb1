/** Grouped-query attention of a text model, with and without keys and values computed before. */
import { product, sum, type Value } from '../graph/graph.ts'
import { add, attention as attend, concat, matmul, reshape, slice, softmax, transpose } from '../graph/ops.ts'
import type { Parameters } from './parameters.ts'
import type { Turn } from './rotary.ts'
import type { TextArchitecture } from './text-config.ts'

/** Keys and values of one layer, float32 [I, kvHeads, T, headDim]. */
export interface LayerCache {
  readonly key: Value
  readonly value: Value
}

/**
 * Attention of the new tokens over past and new keys: one softmax over both.
 *
 * @param name root of the weights `q_proj`, `k_proj`, `v_proj`, `o_proj`.
 * @param x float32 [I, N, hidden]
 * @param bias float32 [I, N, T+N], past keys first.
 * @returns float32 [I, N, hidden], and the new keys and values when there was a past to join.
 */
export function textAttention(
  params: Parameters,
  text: TextArchitecture,
  name: string,
  x: Value,
  bias: Value,
  past: LayerCache | null,
  turn: Turn,
): { output: Value; cache: LayerCache | null } {
  const { heads, kvHeads, attentionBias } = text
  const q = turn(params.linear(`${name}.q_proj`, x, attentionBias), heads)
  const k = turn(params.linear(`${name}.k_proj`, x, attentionBias), kvHeads)
  const v = params.linear(`${name}.v_proj`, x, attentionBias)
  const { mixed, cache } = past
    ? attendPast(text, q, k, v, bias, past)
    : { mixed: attend(q, k, v, bias, { heads, kvHeads }), cache: null }
  return { output: params.linear(`${name}.o_proj`, mixed), cache }
}

/** Attention over cached keys and the new ones; not meant to be differentiated. */
function attendPast(
  { heads, kvHeads, headDim }: TextArchitecture,
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
