/** What a reward is: a named score of one role, of one question and the group of its answers. */
import type { Similarity } from './similarity.ts'
import type { Vote } from './vote.ts'

/** Everything that a reward may look at. */
export interface GroupContext {
  readonly question: string
  readonly silver: string
  /** Final answers as written, null where malformed. */
  readonly answers_G: readonly (string | null)[]
  readonly vote: Vote
  /** What the recipe takes for the right answer; null when it has none. */
  readonly label: string | null
  /** All well-formed questions of the step, this one included. */
  readonly questions_N: readonly string[]
  readonly similarity: Similarity
}

export interface QuestionerReward {
  readonly role: 'questioner'
  /** One number for the question. */
  score(group: GroupContext): number | Promise<number>
}

export interface ReasonerReward {
  readonly role: 'reasoner'
  /** rewards_G: one number per answer. */
  score(group: GroupContext): readonly number[] | Promise<readonly number[]>
}

export type Reward = QuestionerReward | ReasonerReward
