/** What the answers of a group say together. */
import { normalizeAnswer } from './normalize.ts'

/** Answers by which the Reasoner says that the question has none; compared after normalisation. */
export const NONE_WORDS = [
  'none',
  'nothing',
  'nobody',
  'unknown',
  'unclear',
  'not sure',
  'not visible',
  'not present',
  'cannot tell',
  "can't tell",
  "i don't know",
  'not applicable',
  'n/a',
] as const

export interface Vote {
  /** The most frequent normalised answer; the first to appear among equals (a fair draw: samples are exchangeable). */
  readonly majority: string | null
  /** Share of all samples that give the majority answer. */
  readonly share: number
  /** Share of all samples that equal the silver answer. */
  readonly agreement: number
  /** Share of all samples that are "none"-like. */
  readonly none: number
}

/** Counts the answers of one question; a malformed answer (null) stays in every denominator. */
export function countVotes(
  answers: readonly (string | null)[],
  silver: string,
  noneWords: readonly string[] = NONE_WORDS,
): Vote {
  if (answers.length === 0) throw new RangeError('a group needs at least one answer')
  const answers_G = answers.map((answer) => (answer === null ? null : normalizeAnswer(answer)))
  const counts = new Map<string, number>()
  for (const answer of answers_G) if (answer !== null) counts.set(answer, (counts.get(answer) ?? 0) + 1)
  let majority: string | null = null
  for (const [answer, count] of counts) if (majority === null || count > counts.get(majority)!) majority = answer
  const nones = new Set(noneWords.map(normalizeAnswer))
  const shareOf = (hit: (answer: string) => boolean) =>
    answers_G.filter((answer) => answer !== null && hit(answer)).length / answers_G.length
  const target = normalizeAnswer(silver)
  return {
    majority,
    share: majority === null ? 0 : counts.get(majority)! / answers_G.length,
    agreement: shareOf((answer) => answer === target),
    none: shareOf((answer) => nones.has(answer)),
  }
}
