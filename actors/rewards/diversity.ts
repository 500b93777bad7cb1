import { meanDissimilarities } from './similarity.ts'
import type { Similarity } from './similarity.ts'
import { memoizeByList } from './memo.ts'
import type { QuestionerReward } from './reward.ts'

/** `words`: cosine of word counts. `embedding`: the similarity's own measure. */
export const DIVERSITIES = ['words', 'embedding'] as const
export type DiversityKind = (typeof DIVERSITIES)[number]

/** dissimilarities_N in [0, 1]: 1 − mean cosine of the word counts of each question with those of all the others. */
export function wordDissimilarities(questions_N: readonly string[]): number[] {
  const words_N = questions_N.map((question) => question.toLowerCase().match(/[\p{L}\p{N}]+/gu) ?? [])
  const index = new Map([...new Set(words_N.flat())].map((word, i) => [word, i]))
  return meanDissimilarities(
    words_N.map((words) => {
      const counts = new Float32Array(index.size)
      for (const word of words) counts[index.get(word)!]! += 1
      const norm = Math.sqrt(counts.reduce((sum, count) => sum + count * count, 0))
      return norm > 0 ? counts.map((count) => count / norm) : counts
    }),
  )
}

const byWords = memoizeByList((questions_N) => byText(questions_N, wordDissimilarities(questions_N)))

const embeddingMemos = new WeakMap<Similarity, (questions_N: readonly string[]) => Promise<Map<string, number>>>()

function byEmbedding(similarity: Similarity): (questions_N: readonly string[]) => Promise<Map<string, number>> {
  const known = embeddingMemos.get(similarity)
  if (known) return known
  const memo = memoizeByList(async (questions_N) => byText(questions_N, await similarity.dissimilarities(questions_N)))
  embeddingMemos.set(similarity, memo)
  return memo
}

/** Equal questions have equal values, so the question itself is the key. */
function byText(texts_N: readonly string[], values_N: readonly number[]): Map<string, number> {
  return new Map(texts_N.map((text, i) => [text, values_N[i]!]))
}

/** Diversity of one question among `questions_N`, which must contain it; computed once per list. */
export async function diversityOf(
  question: string,
  questions_N: readonly string[],
  kind: DiversityKind,
  similarity: Similarity,
): Promise<number> {
  const values = kind === 'words' ? byWords(questions_N) : await byEmbedding(similarity)(questions_N)
  const value = values.get(question)
  if (value === undefined) throw new RangeError(`the question "${question}" is missing from the step's questions`)
  return value
}

export const diversity: QuestionerReward = {
  role: 'questioner',
  score: (group) => diversityOf(group.question, group.questions_N, 'words', group.similarity),
}
