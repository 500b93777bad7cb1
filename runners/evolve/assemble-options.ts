/** From the configuration of a run to how its updates are put together. */
import type { AssembleOptions } from '../../actors/assemble.ts'
import type { Config } from '../../configs/schema.ts'

export const assembleOptions = ({ loss, train, generation }: Config): AssembleOptions => ({
  ...train,
  loss,
  maxTokens: { questioner: generation.maxQuestionTokens, reasoner: generation.maxAnswerTokens },
})
