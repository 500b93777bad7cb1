/**
 * Held-out accuracy, from answers alone. Right = exact match after normalisation with one of the accepted answers.
 * mean1 = mean accuracy of a sample at temperature 1; greedy = accuracy of the greedy answer; maj = accuracy of the
 * most frequent answer of the samples (self-consistency, Wang et al. 2022).
 */
import { normalizeAnswer } from './rewards/normalize.ts'
import { countVotes } from './rewards/vote.ts'

/** What a model said to one held-out question; an answer is null where a completion has none. */
export interface AnsweredQuestion {
  readonly type: string
  readonly accepted: readonly string[]
  readonly greedy: string | null
  readonly samples: readonly (string | null)[]
}

/** Means over `n` questions, each in [0, 1]. */
export interface Score {
  readonly n: number
  readonly mean1: number
  readonly greedy: number
  readonly maj: number
}

export interface EvalScore extends Score {
  readonly byType: Readonly<Record<string, Score>>
}

/** Scores of all questions and of each type. Throws a RangeError without questions or samples. */
export function scoreAnswers(questions: readonly AnsweredQuestion[]): EvalScore {
  if (questions.length === 0) throw new RangeError('there are no questions to score')
  const byType = new Map<string, Score[]>()
  const scores = questions.map((question) => {
    const score = scoreQuestion(question)
    byType.set(question.type, [...(byType.get(question.type) ?? []), score])
    return score
  })
  return {
    ...mean(scores),
    byType: Object.fromEntries(
      [...byType].sort(([a], [b]) => a.localeCompare(b)).map(([type, of]) => [type, mean(of)]),
    ),
  }
}

/** Scores of one question; a malformed answer is wrong and does not vote. */
export function scoreQuestion({ accepted, greedy, samples }: AnsweredQuestion): Score {
  const right = new Set(accepted.map(normalizeAnswer))
  const isRight = (answer: string | null): boolean => answer !== null && right.has(normalizeAnswer(answer))
  const hits = samples.filter(isRight).length
  const { majority } = countVotes(samples, accepted[0] ?? '')
  return { n: 1, mean1: hits / samples.length, greedy: Number(isRight(greedy)), maj: Number(isRight(majority)) }
}

function mean(scores: readonly Score[]): Score {
  const of = (key: 'mean1' | 'greedy' | 'maj') => scores.reduce((sum, s) => sum + s[key], 0) / scores.length
  return { n: scores.length, mean1: of('mean1'), greedy: of('greedy'), maj: of('maj') }
}
