/** "Did you mean …?" */
import { closest, distance } from 'fastest-levenshtein'

/** ` (did you mean "x"?)`, or nothing when no candidate is near. */
export function suggestion(word: string, candidates: readonly string[]): string {
  const near = nearest(word, candidates)
  return near === null ? '' : ` (did you mean "${near}"?)`
}

/** The most similar candidate, or null when none is near. */
export function nearest(word: string, candidates: readonly string[]): string | null {
  if (candidates.length === 0) return null
  const best = closest(word, candidates as string[])
  return distance(word, best) <= Math.max(2, Math.floor(word.length / 3)) ? best : null
}
