import { bleu, gramIndex } from './bleu.ts'
import { averageLinkage } from './linkage.ts'
import { memoizeByList } from './memo.ts'
import type { QuestionerReward } from './reward.ts'

/** Questions nearer than this in 1 − BLEU, on average, are one cluster. */
const THRESHOLD = 0.5

/**
 * shares_N in (0, 1]: the part of all questions that lies in the cluster of each. Clusters are of average linkage over
 * 1 − BLEU, cut at 0.5, as VisPlay's and R-Zero's released code has it. Equal questions count as one point with a
 * multiplicity (there, equal questions of under four words keep a small distance).
 */
export function clusterShares(questions_N: readonly string[]): number[] {
  const counts = new Map<string, number>()
  for (const question of questions_N) counts.set(question, (counts.get(question) ?? 0) + 1)
  const distinct = [...counts.keys()]
  const weights = [...counts.values()]
  const labels = averageLinkage(bleuDistances(distinct), weights, THRESHOLD)
  const sizes = new Map<number, number>()
  labels.forEach((label, i) => sizes.set(label, (sizes.get(label) ?? 0) + weights[i]!))
  const shares = new Map(distinct.map((question, i) => [question, sizes.get(labels[i]!)! / questions_N.length]))
  return questions_N.map((question) => shares.get(question)!)
}

/** [N, N] of 1 − BLEU; BLEU is not symmetric: the earlier sentence is the hypothesis for both directions. */
function bleuDistances(sentences: readonly string[]): Float32Array {
  const n = sentences.length
  const index = gramIndex()
  const grams = sentences.map(index)
  const distances = new Float32Array(n * n)
  for (let i = 0; i < n; i++) {
    for (let j = i + 1; j < n; j++) {
      const distance = 1 - bleu(grams[j]!, grams[i]!)
      distances[i * n + j] = distance
      distances[j * n + i] = distance
    }
  }
  return distances
}

const sharesByText = memoizeByList((questions_N) => {
  const shares_N = clusterShares(questions_N)
  return new Map(questions_N.map((question, i) => [question, shares_N[i]!]))
})

/** Cluster share of one question among `questions_N`, which must contain it; computed once per list. */
export function clusterShareOf(question: string, questions_N: readonly string[]): number {
  const share = sharesByText(questions_N).get(question)
  if (share === undefined) throw new RangeError(`the question "${question}" is missing from the step's questions`)
  return share
}

/** A penalty: give it a negative weight. */
export const clusterShare: QuestionerReward = {
  role: 'questioner',
  score: (group) => clusterShareOf(group.question, group.questions_N),
}
