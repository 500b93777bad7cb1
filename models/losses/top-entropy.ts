/** Training on the most uncertain tokens only (Wang et al. 2025, "Beyond the 80/20 rule"), as TRL selects them. */
import {
  add,
  cast,
  greater,
  greaterOrEqual,
  less,
  logicalAnd,
  mul,
  minimum,
  reduceMax,
  reduceSum,
  reshape,
  stopGradient,
  sub,
  transpose,
  where,
} from '../graph/ops.ts'
import { product, type Value } from '../graph/graph.ts'

/**
 * float32 [B, T]: 1 for the tokens that count and whose entropy reaches the (1 − share) quantile over all that count.
 * The quantile interpolates linearly between order statistics (torch.quantile). Without a sort in the graph, ranks
 * come from comparing every pair: (B·T)² comparisons, fine for micro-batches of some thousand tokens.
 *
 * @param entropies float32 [B, T], at least 0
 * @param mask float32 [B, T], 1 for tokens that count
 */
export function topEntropyMask(entropies: Value, mask: Value, share: number): Value {
  const size = product(entropies.dims)
  const values = reshape(where(greater(mask, 0), stopGradient(entropies), 0), [size, 1])
  const counted = reshape(mask, [1, size])
  const smaller = cast(less(transpose(values, [1, 0]), values), 'float32')
  /** How many tokens have less entropy than this one. */
  const rank = reduceSum(mul(smaller, counted), { axes: [1], keepdims: true })
  const valid = greater(reshape(mask, [size, 1]), 0)
  // The k-th smallest is the largest value that fewer than k + 1 others undercut.
  const statistic = (k: Value) => reduceMax(where(logicalAnd(valid, greaterOrEqual(k, rank)), values, 0))
  const last = sub(reduceSum(mask), 1)
  const position = mul(last, 1 - share)
  const below = cast(cast(position, 'int32'), 'float32')
  const low = statistic(below)
  const high = statistic(minimum(add(below, 1), last))
  const threshold = add(low, mul(sub(position, below), sub(high, low)))
  return cast(logicalAnd(greater(mask, 0), greaterOrEqual(entropies, threshold)), 'float32')
}
