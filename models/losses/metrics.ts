/** From the sums that add over micro-batches to the figures people read, under TRL's names. */

/**
 * Figures of one micro-batch. The suffix says how two of them combine: `_sum` and `_count` add, `_min` and `_max`
 * keep the smaller and the larger. A micro-batch that saw nothing gives a value that loses against every other.
 */
export type MetricSums = Readonly<Record<string, number>>

/**
 * Combines the figures of micro-batches; order does not matter.
 *
 * @throws RangeError for a name without one of the four suffixes.
 */
export function addMetrics(parts: readonly MetricSums[]): MetricSums {
  const total: Record<string, number> = {}
  for (const part of parts) {
    for (const [name, value] of Object.entries(part)) {
      const before = total[name]
      total[name] = before === undefined ? value : combine(name, before, value)
    }
  }
  return total
}

function combine(name: string, a: number, b: number): number {
  if (name.endsWith('_sum') || name.endsWith('_count')) return a + b
  if (!name.endsWith('_min') && !name.endsWith('_max')) {
    throw new RangeError(`metric ${name} does not say how it adds up: end it in _sum, _count, _min or _max`)
  }
  return name.endsWith('_min') ? Math.min(a, b) : Math.max(a, b)
}

/** TRL name → sum and the count that divides it. */
const MEANS: readonly (readonly [name: string, sum: string, count: string])[] = [
  ['kl', 'kl_sum', 'token_count'],
  ['entropy', 'entropy_sum', 'token_count'],
  ['clip_ratio/low_mean', 'clip_low_sum', 'ratio_count'],
  ['clip_ratio/high_mean', 'clip_high_sum', 'ratio_count'],
  ['clip_ratio/region_mean', 'clip_region_sum', 'ratio_count'],
  ['cispo_clip_ratio', 'cispo_clip_sum', 'ratio_count'],
  ['sampling/sampling_logp_difference/mean', 'sampler_difference_sum', 'sampler_difference_count'],
  ['sampling/importance_sampling_ratio/mean', 'sampler_ratio_sum', 'sampler_ratio_count'],
]
/** TRL name → extreme, the count that says whether anything was seen, and the figure if nothing was. */
const EXTREMES: readonly (readonly [name: string, extreme: string, count: string, empty: number])[] = [
  ['clip_ratio/low_min', 'clip_low_min', 'ratio_count', NaN],
  ['clip_ratio/high_max', 'clip_high_max', 'ratio_count', NaN],
  ['sampling/sampling_logp_difference/max', 'sampler_difference_max', 'sampler_difference_count', 0],
  ['sampling/importance_sampling_ratio/min', 'sampler_ratio_min', 'sampler_ratio_count', 0],
  ['sampling/importance_sampling_ratio/max', 'sampler_ratio_max', 'sampler_ratio_count', 0],
]

/**
 * TRL's metrics of the sums that `grpoLoss` gives (added up by `addMetrics`). A figure that was not computed is left
 * out. `prefix` is put before each name (`reasoner/`).
 */
export function lossMetrics(sums: MetricSums, prefix = ''): Record<string, number> {
  const metrics: Record<string, number> = {}
  for (const [name, sum, count] of MEANS) {
    if (sums[sum] !== undefined) metrics[prefix + name] = sums[sum] / Math.max(1, sums[count]!)
  }
  for (const [name, extreme, count, empty] of EXTREMES) {
    if (sums[extreme] !== undefined) metrics[prefix + name] = sums[count]! > 0 ? sums[extreme] : empty
  }
  return metrics
}

/** The same of the sums that are told apart by role (`reasoner/sampler_ratio_sum`), under `reasoner/…`. */
export function roleLossMetrics(sums: MetricSums, role: string): Record<string, number> {
  const prefix = `${role}/`
  const own = Object.entries(sums).filter(([name]) => name.startsWith(prefix))
  return lossMetrics(Object.fromEntries(own.map(([name, value]) => [name.slice(prefix.length), value])), prefix)
}

/**
 * TRL's `completions/*` of samples: lengths in tokens (the end token included) and the share that hit the limit.
 * The figures of terminated completions are 0 when none terminated.
 *
 * @throws RangeError without any completion.
 */
export function completionMetrics(
  completions: readonly { readonly length: number; readonly finished: boolean }[],
  prefix = '',
): Record<string, number> {
  if (completions.length === 0) throw new RangeError('no completion to compute metrics of')
  const all = range(completions.map((c) => c.length))
  const ended = completions.filter((c) => c.finished).map((c) => c.length)
  const terminated = range(ended.length > 0 ? ended : [0])
  return {
    [`${prefix}completions/mean_length`]: all.mean,
    [`${prefix}completions/min_length`]: all.min,
    [`${prefix}completions/max_length`]: all.max,
    [`${prefix}completions/clipped_ratio`]: 1 - ended.length / completions.length,
    [`${prefix}completions/mean_terminated_length`]: terminated.mean,
    [`${prefix}completions/min_terminated_length`]: terminated.min,
    [`${prefix}completions/max_terminated_length`]: terminated.max,
  }
}

function range(values: readonly number[]): { mean: number; min: number; max: number } {
  return {
    mean: values.reduce((a, b) => a + b, 0) / values.length,
    min: values.reduce((a, b) => Math.min(a, b)),
    max: values.reduce((a, b) => Math.max(a, b)),
  }
}
