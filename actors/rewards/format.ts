import type { ReasonerReward } from './reward.ts'

/** formats_G: 1 where a completion has a final answer, else 0. */
export function formatScores(answers_G: readonly (string | null)[]): number[] {
  return answers_G.map((answer) => Number(answer !== null))
}

export const format: ReasonerReward = { role: 'reasoner', score: (group) => formatScores(group.answers_G) }
