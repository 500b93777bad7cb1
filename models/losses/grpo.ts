/**
 * The GRPO family of losses as a graph, with the semantics of TRL's `GRPOTrainer._compute_loss`: a weighted sum over
 * tokens of −(ratio, clipped) · advantage (+ β · KL). Normalisation is in the weights (normalization.ts), so losses and
 * gradients of micro-batches add.
 */
import { showDims, type Value } from '../graph/graph.ts'
import {
  add,
  cast,
  div,
  equal,
  exp,
  greater,
  less,
  logicalAnd,
  logicalNot,
  maximum,
  minimum,
  mul,
  neg,
  ones,
  reduceMax,
  reduceSum,
  reshape,
  sigmoid,
  stopGradient,
  sub,
  where,
} from '../graph/ops.ts'
import type { FullGrpoConfig } from './grpo-config.ts'
import { samplerCorrection } from './sampler-correction.ts'
import { topEntropyMask } from './top-entropy.ts'

/** float32 values; B completions, padded to T tokens. What is under a zero of the mask is never looked at. */
export interface GrpoInputs {
  /** [B, T] log π(token), the ones that are differentiated. */
  readonly logps: Value
  /** [B, T] the policy's logprobs when it sampled; absent = on policy: the ratio is 1, its gradient is not 0. */
  readonly oldLogps?: Value
  /** [B, T] logprobs of the frozen base; needed when β ≠ 0. */
  readonly refLogps?: Value
  /** [B, T] logprobs that the sampler reported; needed for `sampler_correction`. */
  readonly samplerLogps?: Value
  /** [B, T] entropy of the distribution of each token in nats: a metric, and needed for `top_entropy_quantile` < 1. */
  readonly entropies?: Value
  /** [B, T] 1 for tokens that count. */
  readonly mask: Value
  /** [B] */
  readonly advantages: Value
  /** [B] weight of each token of a completion in the sum, from `tokenWeights`. */
  readonly weights: Value
  /** [B] samples that each completion stands for, in the metrics only; 1 each when absent, 0 for a row of padding. */
  readonly counts?: Value
  /** [K, B] the same for each of K roles, 0 in the rows of others: figures about the sampler are told apart by them. */
  readonly roles?: Value
}

export interface GrpoLoss {
  /** Scalar. */
  readonly loss: Value
  /** Scalars that combine over micro-batches (`addMetrics`), turned into TRL's names by `lossMetrics`. */
  readonly metrics: Readonly<Record<string, Value>>
  /** The same for each role, [K]: those that are told apart. */
  readonly roleMetrics: Readonly<Record<string, Value>>
}

/**
 * Loss and metrics of one (micro-)batch.
 *
 * @throws RangeError when the config needs a tensor that is absent, or shapes differ.
 */
export function grpoLoss(inputs: GrpoInputs, config: FullGrpoConfig): GrpoLoss {
  checkInputs(inputs, config)
  const { mask } = inputs
  const valid = greater(mask, 0)
  const column = (x: Value) => reshape(x, [x.dim(0), 1])
  const advantages = column(inputs.advantages)
  const counts = column(inputs.counts ?? ones(mask.graph, [mask.dim(0)]))
  const old = inputs.oldLogps ? stopGradient(inputs.oldLogps) : stopGradient(inputs.logps)
  // `where` rather than a product: padding may hold an infinity or a NaN.
  const logRatio = where(valid, sub(inputs.logps, old), 0)
  const ratio = exp(config.importance_sampling_level === 'token' ? logRatio : sequenceMean(logRatio, mask))
  const metrics: Record<string, Value> = { ...countSums(mask, counts, config) }
  const roleMetrics: Record<string, Value> = {}

  let terms = policyTerms(ratio, advantages, where(valid, inputs.logps, 0), config)
  if (config.off_policy_mask_threshold !== null) {
    const drift = where(valid, sub(inputs.samplerLogps ?? old, stopGradient(inputs.logps)), 0)
    terms = mul(terms, onPolicyRows(drift, mask, advantages, config.off_policy_mask_threshold))
  }
  if (config.top_entropy_quantile < 1) {
    terms = mul(terms, topEntropyMask(inputs.entropies!, mask, config.top_entropy_quantile))
  }
  if (config.sampler_correction !== null) {
    const { samplerLogps, roles } = inputs
    const given = { oldLogps: old, samplerLogps: samplerLogps!, mask, counts, ...(roles && { roles }) }
    const sampler = samplerCorrection(given, config)
    terms = mul(terms, sampler.ratio)
    Object.assign(metrics, sampler.metrics)
    Object.assign(roleMetrics, sampler.roleMetrics)
  }
  if (config.beta !== 0) {
    const kl = klTerms(where(valid, sub(stopGradient(inputs.refLogps!), inputs.logps), 0), ratio, config)
    terms = add(terms, mul(kl, config.beta))
    metrics.kl_sum = reduceSum(mul(mul(kl, mask), counts))
  }
  if (inputs.entropies) metrics.entropy_sum = reduceSum(mul(where(valid, inputs.entropies, 0), counts))
  Object.assign(metrics, clipSums(ratio, advantages, mask, counts, config))
  return { loss: reduceSum(mul(mul(terms, mask), column(inputs.weights))), metrics, roleMetrics }
}

/** Mean over the tokens that count, [B, T] → [B, 1]; 0 for an empty row. `x` is 0 where the mask is. */
function sequenceMean(x: Value, mask: Value): Value {
  return div(reduceSum(x, { axes: [1], keepdims: true }), maximum(rowLengths(mask), 1))
}

function rowLengths(mask: Value): Value {
  return reduceSum(mask, { axes: [1], keepdims: true })
}

function clipHigh(config: FullGrpoConfig): number {
  return config.epsilon_high ?? config.epsilon
}

/** Ratio after the two-sided clip. */
function boundedRatio(ratio: Value, config: FullGrpoConfig): Value {
  return config.delta === null ? ratio : minimum(ratio, config.delta)
}

/** −objective per token ([B, T]) or per sequence ([B, 1]), before masks and KL. */
function policyTerms(ratio: Value, advantages: Value, logps: Value, config: FullGrpoConfig): Value {
  switch (config.loss_type) {
    case 'cispo':
      return neg(mul(mul(stopGradient(minimum(ratio, clipHigh(config))), advantages), logps))
    case 'sapo': {
      const temperature = where(greater(advantages, 0), config.sapo_temperature_pos, config.sapo_temperature_neg)
      const gate = div(mul(sigmoid(mul(temperature, sub(ratio, 1))), 4), temperature)
      return neg(mul(gate, advantages))
    }
    case 'grpo':
    case 'bnpo':
    case 'dr_grpo':
    case 'dapo':
    case 'luspo': {
      const clipped = minimum(maximum(ratio, 1 - config.epsilon), 1 + clipHigh(config))
      return neg(minimum(mul(boundedRatio(ratio, config), advantages), mul(clipped, advantages)))
    }
  }
}

/** The k3 estimator of KL(policy ‖ base) (Schulman 2020) for d = log π_base − log π. */
function klTerms(difference: Value, ratio: Value, config: FullGrpoConfig): Value {
  const k3 = sub(sub(exp(difference), difference), 1)
  return config.use_bias_correction_kl ? mul(k3, ratio) : k3
}

/** 1 for the rows to keep: advantage ≥ 0, or mean drift of the logprobs within the threshold. */
function onPolicyRows(drift: Value, mask: Value, advantages: Value, threshold: number): Value {
  // A token whose sampling logprob is unknown (NaN) is no evidence of drift.
  const known = where(equal(drift, drift), drift, 0)
  const tooFar = greater(sequenceMean(known, mask), threshold)
  return cast(logicalNot(logicalAnd(less(advantages, 0), tooFar)), 'float32')
}

function countSums(mask: Value, counts: Value, config: FullGrpoConfig): Record<string, Value> {
  const token_count = reduceSum(mul(mask, counts))
  return { token_count, ratio_count: config.importance_sampling_level === 'token' ? token_count : reduceSum(counts) }
}

/** How often the clip was active. TRL's figures: over tokens, or over sequences when the ratio is per sequence. */
function clipSums(
  ratio: Value,
  advantages: Value,
  mask: Value,
  counts: Value,
  config: FullGrpoConfig,
): Record<string, Value> {
  const perToken = config.importance_sampling_level === 'token'
  const sum = (hit: Value) => reduceSum(mul(perToken ? mul(hit, mask) : hit, counts))
  if (config.loss_type === 'sapo') return {}
  const positive = greater(advantages, 0)
  if (config.loss_type === 'cispo') {
    return { cispo_clip_sum: sum(cast(logicalAnd(greater(ratio, clipHigh(config)), positive), 'float32')) }
  }
  const bounded = boundedRatio(ratio, config)
  const low = cast(logicalAnd(less(bounded, 1 - config.epsilon), less(advantages, 0)), 'float32')
  const high = cast(logicalAnd(greater(bounded, 1 + clipHigh(config)), positive), 'float32')
  const share = (hit: Value) => (perToken ? sequenceMean(mul(hit, mask), mask) : hit)
  const present = greater(perToken ? mul(rowLengths(mask), counts) : counts, 0)
  return {
    clip_low_sum: sum(low),
    clip_high_sum: sum(high),
    clip_region_sum: add(sum(low), sum(high)),
    clip_low_min: neg(reduceMax(where(present, neg(share(low)), -1))),
    clip_high_max: reduceMax(where(present, share(high), 0)),
  }
}

function checkInputs(inputs: GrpoInputs, config: FullGrpoConfig): void {
  if (config.beta !== 0 && !inputs.refLogps) throw new RangeError('beta is not 0: the logprobs of the base are needed')
  if (config.sampler_correction !== null && !inputs.samplerLogps) {
    throw new RangeError('sampler_correction is set: the logprobs of the sampler are needed')
  }
  if (config.top_entropy_quantile < 1 && !inputs.entropies) {
    throw new RangeError('top_entropy_quantile is below 1: entropies are needed')
  }
  const { logps, oldLogps, refLogps, samplerLogps, entropies, mask } = inputs
  for (const [name, value] of Object.entries({ oldLogps, refLogps, samplerLogps, entropies, mask })) {
    if (!value || showDims(value.dims) === showDims(logps.dims)) continue
    throw new RangeError(`${name} has the shape ${showDims(value.dims)}, logps ${showDims(logps.dims)}`)
  }
}
