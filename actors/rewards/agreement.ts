import { normalizeAnswer } from './normalize.ts'
import type { ReasonerReward } from './reward.ts'
import type { Similarity } from './similarity.ts'

/** agreements_G: 1 where an answer equals the label after normalisation, else 0; a missing answer or label agrees never. */
export function exactAgreement(answers_G: readonly (string | null)[], label: string | null): number[] {
  const target = label === null ? null : normalizeAnswer(label)
  return answers_G.map((answer) => Number(answer !== null && target !== null && normalizeAnswer(answer) === target))
}

/** agreements_G in [0, 1]: similarity of each answer to the label; a missing answer has 0. */
export async function similarAgreement(
  answers_G: readonly (string | null)[],
  label: string,
  similarity: Similarity,
): Promise<number[]> {
  const given = answers_G.filter((answer) => answer !== null)
  const similarities = await similarity.compare(label, given)
  let next = 0
  return answers_G.map((answer) => (answer === null ? 0 : similarities[next++]!))
}

export const agreement: ReasonerReward = {
  role: 'reasoner',
  score: (group) => exactAgreement(group.answers_G, group.label),
}
