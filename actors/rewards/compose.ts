/** What the recipes have in common when they put rewards together. */
import type { GroupContext } from './reward.ts'
import type { JudgeOutput } from './recipe.ts'
import { rewards } from './registry.ts'

/** Verdict of a malformed question: nothing to answer, so nothing for the Reasoner. */
export function malformedVerdict(reward: number): JudgeOutput {
  return { questioner: { reward, parts: { malformed: reward } }, reasoner: null }
}

/** rewards_G: (1 − formatWeight)·agreement + formatWeight for a final answer, `malformed` for none. */
export function reasonerRewards(
  answers_G: readonly (string | null)[],
  agreements_G: readonly number[],
  knobs: { readonly formatWeight: number; readonly malformedAnswer: number },
): number[] {
  return answers_G.map((answer, g) =>
    answer === null ? knobs.malformedAnswer : (1 - knobs.formatWeight) * agreements_G[g]! + knobs.formatWeight,
  )
}

/** Shares are quotients of small integers: ends of a range count as inside in spite of rounding. */
export function inRange(share: number, [low, high]: readonly [number, number]): boolean {
  return share >= low - 1e-9 && share <= high + 1e-9
}

/** Adds rewards of the registry to a verdict, `weights` by (checked) name; a part of the same name as the reward records it. */
export async function withExtra(
  verdict: JudgeOutput,
  group: GroupContext,
  weights: Readonly<Record<string, number>>,
): Promise<JudgeOutput> {
  let { questioner, reasoner } = verdict
  for (const [name, weight] of Object.entries(weights)) {
    const reward = rewards[name]!
    if (reward.role === 'questioner') {
      const score = await reward.score(group)
      questioner = { reward: questioner.reward + weight * score, parts: { ...questioner.parts, [name]: score } }
    } else if (reasoner) {
      const scores_G = await reward.score(group)
      reasoner = { ...reasoner, rewards: reasoner.rewards.map((value, g) => value + weight * scores_G[g]!) }
    }
  }
  return { questioner, reasoner }
}
