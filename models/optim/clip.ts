/** Clipping by the global norm, as torch.nn.utils.clip_grad_norm_ does it. */
import type { Weights } from '../tensor.ts'

/** Euclidean norm over all gradients together, summed in double precision. NaN or Infinity tells of a bad gradient. */
export function globalNorm(gradients: Weights): number {
  let sum = 0
  for (const { data } of Object.values(gradients)) {
    // Four partial sums let the CPU overlap the additions; one chain of them is 4× slower.
    let a = 0
    let b = 0
    let c = 0
    let d = 0
    const whole = data.length - (data.length % 4)
    for (let i = 0; i < whole; i += 4) {
      a += data[i]! * data[i]!
      b += data[i + 1]! * data[i + 1]!
      c += data[i + 2]! * data[i + 2]!
      d += data[i + 3]! * data[i + 3]!
    }
    for (let i = whole; i < data.length; i++) a += data[i]! * data[i]!
    sum += a + b + c + d
  }
  return Math.sqrt(sum)
}

/** The gradient holds a NaN or an infinity; using it would destroy the weights. */
export class NonFiniteGradientError extends Error {
  override name = 'NonFiniteGradientError'
}

/**
 * Factor for all gradients: min(1, max / (norm + 1e-6)); 1 when `max` is null (no clipping).
 *
 * @throws NonFiniteGradientError for a norm that is NaN or infinite, whether or not it would be clipped.
 */
export function clipScale(norm: number, max: number | null): number {
  if (!Number.isFinite(norm)) {
    throw new NonFiniteGradientError(
      `the gradient's norm is ${norm}: look for a loss that diverged; lower the learning rate`,
    )
  }
  return max === null ? 1 : Math.min(1, max / (norm + 1e-6))
}
