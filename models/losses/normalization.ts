/** Normalisation of the loss types, taken out of the loss: it leaves a plain weighted sum of token terms. */
import type { LossType } from './grpo-config.ts'

export interface NormalizationOptions {
  /** How many samples each completion stands for (identical completions computed once); 1 each when absent. */
  readonly counts_B?: readonly number[]
  /** Length normaliser of `dr_grpo`. */
  readonly maxCompletionLength: number
  /** Micro-batches per update, when the completions given are one of them; 1 when they are the whole update. */
  readonly accumulationSteps?: number
  /** Updates that share one generation batch, when the completions given are all of it (`dapo`, `cispo`). */
  readonly stepsPerGeneration?: number
}

/**
 * Weight of every token of each completion, such that TRL's loss is Σ_b Σ_t weight_b · term_bt over the tokens that
 * count. Computed once for an update and then cut into micro-batches, whose losses and gradients simply add.
 *
 * @param lengths_B number of tokens that count, per completion; 0 is allowed.
 * @throws RangeError when `counts_B` has another length.
 */
export function tokenWeights(
  lossType: LossType,
  lengths_B: readonly number[],
  options: NormalizationOptions,
): Float32Array {
  const counts_B = options.counts_B ?? lengths_B.map(() => 1)
  if (counts_B.length !== lengths_B.length) {
    throw new RangeError(`${counts_B.length} counts for ${lengths_B.length} completions`)
  }
  const accumulation = options.accumulationSteps ?? 1
  const sequences = counts_B.reduce((a, b) => a + b, 0)
  const tokens = Math.max(
    1,
    lengths_B.reduce((sum, length, b) => sum + length * counts_B[b]!, 0),
  )
  return Float32Array.from(lengths_B, (length, b) => {
    const count = counts_B[b]!
    switch (lossType) {
      case 'grpo':
      case 'sapo':
        return count / (Math.max(1, length) * sequences * accumulation)
      case 'bnpo':
        return count / (tokens * accumulation)
      case 'dr_grpo':
        return count / (sequences * options.maxCompletionLength * accumulation)
      case 'luspo':
        return count / (sequences * accumulation)
      case 'dapo':
      case 'cispo':
        return (count * (options.stepsPerGeneration ?? 1)) / (tokens * accumulation)
    }
  })
}
