/** Who answers: a model of this process, or the model actors of a run. */
import type { Generated, SampledToken } from '../../models/model.ts'
import type { Picture } from './picture.ts'

/** One question of a client, parsed. */
export interface Ask {
  /** Name of the model as the client wrote it. */
  readonly model: string
  readonly picture: Picture | null
  readonly prompt: string
  readonly samples: number
  readonly maxNewTokens: number
  readonly temperature: number
  readonly seed: number
  /** Told of tokens as they are sampled, by backends that can. */
  readonly onToken?: (token: SampledToken) => void
}

export interface Answered {
  /** The model with its version, as the reply names it. */
  readonly model: string
  readonly generated: Generated
}

export interface Backend {
  /** Names that clients may ask for, the usual one first. */
  models(): Promise<readonly string[]>
  /** Throws ApiError for a name that it does not serve. */
  check(model: string): Promise<void>
  /** Answers questions together; a result that is an Error is that of one question alone. */
  answer(asks: readonly Ask[]): Promise<readonly (Answered | Error)[]>
  /** Text of one token. */
  tokenText(token: number): string
  /** Batches that may be under way at once. */
  readonly parallel: number
  close(): Promise<void>
}
