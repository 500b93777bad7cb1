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
 * Keys and values of new tokens beside those of the past, which stay where they are, or appended to them: a copy of the
 * past, which is worth it where the memory is that of a device, and nothing of it has to come back.
 */
export type Join = 'beside' | 'append'

export interface Past extends LayerCache {
  readonly join: Join
}

/**
 * Attention of the new tokens over past and new keys: one softmax over both.
 *
 * @param name root of the weights `q_proj`, `k_proj`, `v_proj`, `o_proj`.
 * @param x float32 [I, N, hidden]
 * @param bias float32 [I, N, T+N], past keys first.
 * @returns float32 [I, N, hidden], and when there was a past to join, the new keys and values or, appended, all of them.
 */
export function textAttention(
  params: Parameters,
  text: TextArchitecture,
  name: string,
  x: Value,
  bias: Value,
  past: Past | null,
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
  past: Past,
): { mixed: Value; cache: LayerCache } {
  const repeats = heads / kvHeads
  const [images, n] = [q.dim(0), q.dim(1)]
  const perKv = (y: Value) => transpose(reshape(y, [images, n, kvHeads, headDim]), [0, 2, 1, 3])
  // The query heads of one key head are stacked along the token axis, so that keys are never repeated.
  const rows = product([repeats, n])
  const grouped = transpose(reshape(q, [images, n, kvHeads, repeats, headDim]), [0, 2, 3, 1, 4])
  const query = reshape(grouped, [images, kvHeads, rows, headDim])
  const { scores, mix, cache } = joined(past, { key: perKv(k), value: perKv(v) })
  const all = scores((keys) => matmul(query, keys, { transB: true, alpha: headDim ** -0.5 }))
  const width = all.dim(-1)
  const biased = add(reshape(all, [images, kvHeads, repeats, n, width]), reshape(bias, [images, 1, 1, n, width]))
  const probs = reshape(softmax(biased), [images, kvHeads, rows, width])
  const mixed = reshape(mix(probs), [images, kvHeads, repeats, n, headDim])
  const merged = reshape(transpose(mixed, [0, 3, 1, 2, 4]), [images, n, heads * headDim])
  return { mixed: merged, cache }
}

interface Joined {
  /** Scores of all keys from those of a part of them. */
  scores(of: (keys: Value) => Value): Value
  /** Probabilities of all keys · values. */
  mix(probs: Value): Value
  readonly cache: LayerCache
}

function joined(past: Past, fresh: LayerCache): Joined {
  if (past.join === 'append') {
    const [key, value] = [concat([past.key, fresh.key], 2), concat([past.value, fresh.value], 2)]
    return { scores: (of) => of(key), mix: (probs) => matmul(probs, value), cache: { key, value } }
  }
  const t = past.value.dim(2)
  return {
    scores: (of) => concat([of(past.key), of(fresh.key)], -1),
    // Two products instead of a copy of the past next to the new values.
    mix: (probs) =>
      add(
        matmul(slice(probs, -1, 0, t), past.value),
        matmul(slice(probs, -1, t, sum([t, fresh.value.dim(2)])), fresh.value),
      ),
    cache: fresh,
  }
}
