/**
 * Correction for a sampler that is not quite the policy (another precision, an older version): the ratio
 * π_old / π_sampler weighs the policy term, capped (truncated importance sampling) or dropped outside a band (masked
 * importance sampling), per token or per sequence. Semantics of TRL's `vllm_importance_sampling_*`.
 */
import {
  cast,
  equal,
  exp,
  greater,
  greaterOrEqual,
  logicalAnd,
  maximum,
  minimum,
  mul,
  neg,
  reduceMax,
  reduceSum,
  stopGradient,
  sub,
  where,
} from '../graph/ops.ts'
import type { Value } from '../graph/graph.ts'
import type { FullGrpoConfig } from './grpo-config.ts'

/** Identity of a minimum that still survives JSON. */
const LARGEST = 3.4028234e38

export interface SamplerInputs {
  /** float32 [B, T]: the policy's logprobs when the batch was sampled. */
  readonly oldLogps: Value
  /** float32 [B, T]: the logprobs that the sampler reported; NaN = unknown, no correction for that token. */
  readonly samplerLogps: Value
  /** float32 [B, T]: 1 for tokens that count. */
  readonly mask: Value
  /** float32 [B, 1]: samples that a row stands for. */
  readonly counts: Value
}

/**
 * Detached ratio, [B, T] for `token_*` and [B, 1] for `sequence_*`, and the sums behind TRL's `sampling/*` metrics
 * (see `lossMetrics`).
 *
 * @throws RangeError when the config asks for no correction.
 */
export function samplerCorrection(
  inputs: SamplerInputs,
  config: Pick<FullGrpoConfig, 'sampler_correction' | 'sampler_cap' | 'sampler_floor'>,
): { readonly ratio: Value; readonly metrics: Readonly<Record<string, Value>> } {
  const mode = config.sampler_correction
  if (mode === null) throw new RangeError('samplerCorrection needs a mode: set sampler_correction')
  const valid = greater(inputs.mask, 0)
  // NaN is the one value that does not equal itself.
  const known = logicalAnd(valid, equal(inputs.samplerLogps, inputs.samplerLogps))
  const difference = where(known, sub(stopGradient(inputs.oldLogps), inputs.samplerLogps), 0)
  const perSequence = mode === 'sequence_truncate' || mode === 'sequence_mask'
  const raw = exp(perSequence ? reduceSum(difference, { axes: [1], keepdims: true }) : difference)
  const bound = mode === 'token_truncate' || mode === 'sequence_truncate' ? truncate : drop
  const ratio = bound(raw, config.sampler_floor, config.sampler_cap)
  const seen = perSequence ? inputs.counts : mul(inputs.mask, inputs.counts)
  return { ratio, metrics: { ...differenceSums(difference, known, inputs.counts), ...ratioSums(ratio, seen) } }
}

function truncate(ratio: Value, floor: number | null, cap: number | null): Value {
  const raised = floor === null ? ratio : maximum(ratio, floor)
  return cap === null ? raised : minimum(raised, cap)
}

function drop(ratio: Value, floor: number | null, cap: number | null): Value {
  const above = floor === null ? ratio : where(greaterOrEqual(ratio, floor), ratio, 0)
  return cap === null ? above : where(greater(ratio, cap), 0, above)
}

function differenceSums(difference: Value, known: Value, counts: Value): Record<string, Value> {
  const size = maximum(difference, neg(difference))
  return {
    sampler_difference_sum: reduceSum(mul(size, counts)),
    sampler_difference_count: reduceSum(mul(cast(known, 'float32'), counts)),
    sampler_difference_max: reduceMax(size),
  }
}

function ratioSums(ratio: Value, seen: Value): Record<string, Value> {
  const present = greater(seen, 0)
  return {
    sampler_ratio_sum: reduceSum(mul(ratio, seen)),
    sampler_ratio_count: reduceSum(seen),
    sampler_ratio_min: neg(reduceMax(where(present, neg(ratio), -LARGEST))),
    sampler_ratio_max: reduceMax(where(present, ratio, 0)),
  }
}
