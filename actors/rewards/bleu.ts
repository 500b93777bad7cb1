/**
 * Sentence BLEU-4 with smoothing method 1 (Chen & Cherry 2014), as NLTK's `sentence_bleu(…, smoothing_function=
 * SmoothingFunction().method1)` computes it for one reference: uniform weights, brevity penalty, a precision without a
 * match counts 0.1 / (number of n-grams), no common word gives 0.
 */

const ORDERS = 4
const EPSILON = 0.1

/** The n-grams of a sentence, one sorted array of ids per order; built by `gramIndex`. */
export interface Grams {
  readonly length: number
  readonly ids: readonly Int32Array[]
}

/** Turns sentences (words split at white space) into n-gram ids that are comparable between calls of one index. */
export function gramIndex(): (sentence: string) => Grams {
  const known = new Map<string, number>()
  const idOf = (gram: string) => {
    const id = known.get(gram) ?? known.size
    known.set(gram, id)
    return id
  }
  return (sentence) => {
    const words = sentence.split(/\s+/u).filter((word) => word !== '')
    const ids = Array.from({ length: ORDERS }, (_, order) => {
      const count = Math.max(0, words.length - order)
      return Int32Array.from({ length: count }, (_, i) => idOf(words.slice(i, i + order + 1).join(' '))).sort()
    })
    return { length: words.length, ids }
  }
}

/** BLEU in [0, 1] of a hypothesis against one reference. */
export function bleu(reference: Grams, hypothesis: Grams): number {
  let product = 1
  let matches = 1
  for (let order = 0; order < ORDERS; order++) {
    const grams = hypothesis.ids[order]!
    // Without a common n-gram there is no longer one either.
    if (matches > 0) matches = common(reference.ids[order]!, grams)
    if (order === 0 && matches === 0) return 0
    product *= (matches === 0 ? EPSILON : matches) / Math.max(1, grams.length)
  }
  const brevity = hypothesis.length >= reference.length ? 1 : Math.exp(1 - reference.length / hypothesis.length)
  // Geometric mean of the four precisions.
  return brevity * Math.sqrt(Math.sqrt(product))
}

/** Size of the intersection of two sorted multisets: clipped n-gram matches. */
function common(a: Int32Array, b: Int32Array): number {
  let matches = 0
  for (let i = 0, j = 0; i < a.length && j < b.length;) {
    if (a[i] === b[j]) {
      matches++
      i++
      j++
    } else if (a[i]! < b[j]!) i++
    else j++
  }
  return matches
}
