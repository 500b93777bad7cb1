/** Settings of the GRPO family of losses, under TRL's names and with TRL's meaning. */

/**
 * `grpo` mean of sequence means; `bnpo` token mean; `dr_grpo` constant length normaliser; `dapo` token mean over the
 * whole generation batch; `cispo` clipped, detached ratio times logprob; `luspo` length-unbiased sequence loss;
 * `sapo` soft sigmoid gate instead of a clip.
 */
export type LossType = 'grpo' | 'bnpo' | 'dr_grpo' | 'dapo' | 'cispo' | 'luspo' | 'sapo'

/** How the ratio policy / sampler is bounded: one ratio per token or per sequence, capped or dropped. */
export type SamplerCorrection = 'token_truncate' | 'token_mask' | 'sequence_truncate' | 'sequence_mask'

export interface FullGrpoConfig {
  readonly loss_type: LossType
  /** Ratio per token (GRPO) or the geometric mean over a sequence (GSPO, LUSPO). */
  readonly importance_sampling_level: 'token' | 'sequence'
  readonly epsilon: number
  /** Upper clip; null = `epsilon`. For `cispo` the cap of the ratio itself. */
  readonly epsilon_high: number | null
  /** Two-sided clip of the ratio for negative advantages (INTELLECT-2); null = off. */
  readonly delta: number | null
  /** Weight of the k3 KL to the frozen base; 0 = off. */
  readonly beta: number
  /** Multiplies the KL by the ratio, so that its gradient is unbiased off policy. */
  readonly use_bias_correction_kl: boolean
  /** Drops sequences with a negative advantage whose mean logprob drift exceeds this; null = off (DeepSeek-V3.2). */
  readonly off_policy_mask_threshold: number | null
  /** Trains only this share of tokens, those with the highest entropy; 1 = all. */
  readonly top_entropy_quantile: number
  readonly sapo_temperature_neg: number
  readonly sapo_temperature_pos: number
  /** Importance-sampling correction against the sampler's logprobs; null = off. */
  readonly sampler_correction: SamplerCorrection | null
  /** Upper bound of the sampler ratio; null = unbounded. */
  readonly sampler_cap: number | null
  /** Lower bound of the sampler ratio; null = unbounded. */
  readonly sampler_floor: number | null
}

type RequiredKey = 'loss_type' | 'epsilon' | 'epsilon_high' | 'delta' | 'beta' | 'sampler_cap'

/**
 * What a caller must say; the rest is optional. Without `sampler_correction`, a `sampler_cap` means `token_truncate`
 * and null means no correction.
 */
export type GrpoConfig = Pick<FullGrpoConfig, RequiredKey> & Partial<Omit<FullGrpoConfig, RequiredKey>>

/** TRL's defaults for everything that the caller left out. */
export function fullGrpoConfig(config: GrpoConfig): FullGrpoConfig {
  return {
    importance_sampling_level: 'token',
    use_bias_correction_kl: true,
    off_policy_mask_threshold: null,
    top_entropy_quantile: 1,
    sapo_temperature_neg: 1.05,
    sapo_temperature_pos: 1,
    sampler_correction: config.sampler_cap === null ? null : 'token_truncate',
    sampler_floor: null,
    ...config,
  }
}
