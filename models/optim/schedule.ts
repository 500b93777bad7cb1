/** Learning rate over the steps of a run. */

export interface Schedule {
  readonly kind: 'constant' | 'linear' | 'cosine'
  /** Highest learning rate, reached at the end of the warm-up. */
  readonly peak: number
  /** Steps of linear warm-up; step `warmup − 1` is the first at the peak. */
  readonly warmup: number
  /** Steps in all; `linear` and `cosine` would be 0 at step `total`. */
  readonly total: number
}

/**
 * Learning rate of step 0, 1, …: min(1, (step + 1) / warmup) · peak, then the decay of the kind. The ramp starts at
 * peak / warmup rather than at 0, so that no step is wasted. Beyond `total` a decaying rate stays 0.
 */
export function learningRate(schedule: Schedule, step: number): number {
  const { kind, peak, warmup, total } = schedule
  if (step < warmup) return (peak * (step + 1)) / warmup
  const progress = Math.min(1, (step - warmup) / Math.max(1, total - warmup))
  switch (kind) {
    case 'constant':
      return peak
    case 'linear':
      return peak * (1 - progress)
    case 'cosine':
      return (peak * (1 + Math.cos(Math.PI * progress))) / 2
  }
}
