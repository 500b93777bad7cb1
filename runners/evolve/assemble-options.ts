/** From the configuration of a run to how its updates are put together. */
import type { AssembleOptions } from '../../actors/assemble.ts'
import type { Config } from '../../configs/schema.ts'
import type { FullGrpoConfig } from '../../models/losses/grpo-config.ts'

export const assembleOptions = (config: Config): AssembleOptions => ({
  ...config.train,
  loss: lossOf(config),
  maxTokens: { questioner: config.generation.maxQuestionTokens, reasoner: config.generation.maxAnswerTokens },
})

/** Largest weight of a token that the policy finds likelier than its sampler did: truncated importance sampling. */
const SAMPLER_CAP = 2

/** The loss with its correction decided: rounded weights are another sampler than the policy, exact ones are not. */
export function lossOf({ model, loss }: Pick<Config, 'model' | 'loss'>): FullGrpoConfig {
  const { sampler_correction: asked, sampler_cap: cap } = loss
  if (asked !== 'auto') return { ...loss, sampler_correction: asked }
  if (model.rollouts === 'fp32') return { ...loss, sampler_correction: null }
  return { ...loss, sampler_correction: 'token_truncate', sampler_cap: cap ?? SAMPLER_CAP }
}
