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
  reshape,
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
  /** float32 [K, B]: the same for each of K roles, 0 in the rows of others. */
  readonly roles?: Value
}

export interface SamplerCorrected {
  /** Detached, [B, T] for `token_*` and [B, 1] for `sequence_*`. */
  readonly ratio: Value
  /** The sums behind TRL's `sampling/*` metrics (see `lossMetrics`), scalars. */
  readonly metrics: Readonly<Record<string, Value>>
  /** The same for each role, [K]; empty when no roles are given. */
  readonly roleMetrics: Readonly<Record<string, Value>>
}

/** @throws RangeError when the config asks for no correction. */
export function samplerCorrection(
  inputs: SamplerInputs,
  config: Pick<FullGrpoConfig, 'sampler_correction' | 'sampler_cap' | 'sampler_floor'>,
): SamplerCorrected {
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
  const figures = { difference, known, ratio, weight: perSequence ? null : inputs.mask }
  return {
    ratio,
    metrics: sums(figures, inputs.counts, [0, 1]),
    roleMetrics: inputs.roles ? sums(byRole(figures), reshape(inputs.roles, [...inputs.roles.dims, 1]), [1, 2]) : {},
  }
}

function truncate(ratio: Value, floor: number | null, cap: number | null): Value {
  const raised = floor === null ? ratio : maximum(ratio, floor)
  return cap === null ? raised : minimum(raised, cap)
}

function drop(ratio: Value, floor: number | null, cap: number | null): Value {
  const above = floor === null ? ratio : where(greaterOrEqual(ratio, floor), ratio, 0)
  return cap === null ? above : where(greater(ratio, cap), 0, above)
}

interface Figures {
  readonly difference: Value
  readonly known: Value
  readonly ratio: Value
  /** How often a ratio counts for a sample; null = once. */
  readonly weight: Value | null
}

/** With a leading axis for the roles. */
function byRole({ difference, known, ratio, weight }: Figures): Figures {
  const lead = (x: Value) => reshape(x, [1, ...x.dims])
  return { difference: lead(difference), known: lead(known), ratio: lead(ratio), weight: weight && lead(weight) }
}

/** Over some axes; `counts` are the samples that each row stands for. */
function sums({ difference, known, ratio, weight }: Figures, counts: Value, axes: number[]): Record<string, Value> {
  const size = maximum(difference, neg(difference))
  const seen = weight ? mul(weight, counts) : counts
  const present = greater(seen, 0)
  const total = (x: Value) => reduceSum(x, { axes })
  const most = (x: Value) => reduceMax(x, { axes })
  return {
    sampler_difference_sum: total(mul(size, counts)),
    sampler_difference_count: total(mul(cast(known, 'float32'), counts)),
    sampler_difference_max: most(where(greater(counts, 0), size, 0)),
    sampler_ratio_sum: total(mul(ratio, seen)),
    sampler_ratio_count: total(seen),
    sampler_ratio_min: neg(most(where(present, neg(ratio), -LARGEST))),
    sampler_ratio_max: most(where(present, ratio, 0)),
  }
}
