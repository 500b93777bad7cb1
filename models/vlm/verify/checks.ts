/** Comparisons of a recomputed quantity with its golden value. Anything missing or of another length fails. */
import type { Verified } from '../../losses/verify-grpo.ts'

/** What README.md of the goldens allows in float32, per quantity. */
export const TOLERANCE = {
  pixels: 2e-6,
  /** Mean deviation in levels of 8-bit pixels from another JPEG decoder. */
  decoderLevels: 0.5,
  features: 1e-4,
  logits: 5e-4,
  /** Of logprobs and entropies, in nats. */
  logprobs: 2e-4,
  batched: 1e-4,
  loss: 5e-5,
  /** Of max(largest of the tensor, 1e-3 · largest of all). */
  gradient: 1e-3,
  /** Share of the learning rate. */
  adapterStep: 0.05,
  advantages: 1e-6,
  /** float32 rounding of weights. */
  weights: 1e-6,
  /** Steps with a smaller gap between the two best logits may go either way. */
  greedyMargin: 1e-3,
} as const

type Numbers = ArrayLike<number>
type Scalar = string | number | bigint | boolean | null

export interface Checks {
  /** Largest absolute difference. NaN equals nothing. */
  close(quantity: string, actual: Numbers, golden: Numbers, tolerance: number): Verified
  /** Number of differing entries; none may differ. */
  same(quantity: string, actual: ArrayLike<Scalar>, golden: ArrayLike<Scalar>): Verified
  /** A condition: error 0 if it holds, else 1. */
  holds(quantity: string, condition: boolean): Verified
  /** An error that was computed elsewhere. */
  within(quantity: string, maxError: number, tolerance: number): Verified
}

/** Checks of the case `name`. */
export function checksOf(name: string): Checks {
  const within = (quantity: string, maxError: number, tolerance: number): Verified => ({
    case: name,
    quantity,
    maxError,
    tolerance,
    pass: maxError <= tolerance,
  })
  return {
    within,
    close: (quantity, actual, golden, tolerance) => within(quantity, largestDifference(actual, golden), tolerance),
    same: (quantity, actual, golden) => within(quantity, countDifferences(actual, golden), 0),
    holds: (quantity, condition) => within(quantity, condition ? 0 : 1, 0),
  }
}

/** Infinity when lengths differ or a value is not finite. */
export function largestDifference(a: Numbers, b: Numbers): number {
  if (a.length !== b.length) return Infinity
  let largest = 0
  for (let i = 0; i < a.length; i++) {
    const difference = Math.abs(a[i]! - b[i]!)
    if (!Number.isFinite(difference)) return Infinity
    if (difference > largest) largest = difference
  }
  return largest
}

/** Mean absolute difference; Infinity when lengths differ. */
export function meanDifference(a: Numbers, b: Numbers): number {
  if (a.length !== b.length) return Infinity
  let sum = 0
  for (let i = 0; i < a.length; i++) sum += Math.abs(a[i]! - b[i]!)
  return a.length === 0 ? 0 : sum / a.length
}

function countDifferences(a: ArrayLike<Scalar>, b: ArrayLike<Scalar>): number {
  if (a.length !== b.length) return Infinity
  let count = 0
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) count++
  return count
}

/** Largest magnitude. */
export function largest(values: Numbers): number {
  let most = 0
  for (let i = 0; i < values.length; i++) most = Math.max(most, Math.abs(values[i]!))
  return most
}

/** What a golden JSON says of a tensor that may be stored in part only. */
export interface TensorDigest {
  readonly shape: readonly number[]
  readonly mean: number
  readonly std: number
  readonly min: number
  readonly max: number
  readonly first: readonly number[]
}

/** Compares shape, moments (population), range and the first values. */
export function digestError(values: Numbers, shape: readonly number[], golden: TensorDigest): number {
  if (shape.join() !== golden.shape.join()) return Infinity
  const { mean, std, min, max } = moments(values)
  const first = Array.from({ length: golden.first.length }, (_, i) => values[i] ?? NaN)
  return largestDifference(
    [mean, std, min, max, ...first],
    [golden.mean, golden.std, golden.min, golden.max, ...golden.first],
  )
}

/** Moments in double precision; `std` divides by n. */
export function moments(values: Numbers): { mean: number; std: number; min: number; max: number } {
  let [sum, min, max] = [0, Infinity, -Infinity]
  for (let i = 0; i < values.length; i++) {
    const x = values[i]!
    sum += x
    if (x < min) min = x
    if (x > max) max = x
  }
  const mean = sum / values.length
  let squares = 0
  for (let i = 0; i < values.length; i++) squares += (values[i]! - mean) ** 2
  return { mean, std: Math.sqrt(squares / values.length), min, max }
}
