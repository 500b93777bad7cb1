import type { QuestionerReward } from './reward.ts'

/** `hard`: the less the answers agree, the better. `peak`: best where half of them agree (neither trivial nor hopeless). */
export const DIFFICULTIES = ['hard', 'peak'] as const
export type DifficultyKind = (typeof DIFFICULTIES)[number]

/** Difficulty of a question from the share (or mean similarity) `share` in [0, 1] of answers that agree. */
export function difficultyOf(share: number, kind: DifficultyKind): number {
  switch (kind) {
    case 'hard':
      return 1 - share
    case 'peak':
      return Math.min(share, 1 - share)
  }
}

export const difficulty: QuestionerReward = {
  role: 'questioner',
  score: (group) => difficultyOf(group.vote.share, 'peak'),
}
