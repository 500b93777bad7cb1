/** Answers in a comparable form, and the final answer of a completion. */
import { imagePlaceholder } from './placeholder.ts'

const ARTICLES = new Set(['a', 'an', 'the'])

const UNITS =
  'zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen'.split(
    ' ',
  )
const TENS = 'twenty thirty forty fifty sixty seventy eighty ninety'.split(' ')
/** 'zero' → 0 … 'nineteen' → 19, 'twenty' → 20, … 'ninety' → 90. */
const NUMBER_WORDS = new Map([
  ...UNITS.map((word, i) => [word, i] as const),
  ...TENS.map((word, i) => [word, 20 + 10 * i] as const),
])

/**
 * Canonical form of an answer: NFKC, lower case, no punctuation, number words as digits ('twenty-one' → '21'), no
 * articles, single spaces. Two answers are *the same* exactly where their canonical forms are equal. Idempotent;
 * '' for text without letters, digits or symbols.
 */
export function normalizeAnswer(text: string): string {
  const plain = text
    .normalize('NFKC')
    .toLowerCase()
    .normalize('NFKC')
    .replace(/(\d),(?=\d{3}\b)/g, '$1')
    .replace(/[’']/g, '')
    // A point between digits and a minus before a digit belong to the number.
    .replace(/(?<!\d)\.(?=\d)/g, '0.')
    .replace(/\.(?!\d)/g, ' ')
    .replace(/(?<=[\p{L}\p{N}])-|-(?!\d)/gu, ' ')
    .replace(/(?![.-])\p{P}/gu, ' ')
  const words = joinNumbers(plain.split(/\s+/u).filter((word) => word !== ''))
  const kept = words.filter((word) => !ARTICLES.has(word))
  // 'A' may be the choice of a multiple-choice question: an answer that is nothing but an article stays.
  return (kept.length > 0 ? kept : words).join(' ')
}

function joinNumbers(words: readonly string[]): string[] {
  const joined: string[] = []
  for (let i = 0; i < words.length; i++) {
    const value = NUMBER_WORDS.get(words[i]!)
    const unit = NUMBER_WORDS.get(words[i + 1] ?? '')
    if (value === undefined) joined.push(words[i]!)
    else if (value >= 20 && unit !== undefined && unit >= 1 && unit <= 9) {
      joined.push(String(value + unit))
      i++
    } else joined.push(String(value))
  }
  return joined
}

/**
 * Final answer of a Reasoner completion, as written: the last `<answer>…</answer>`, else the last `\boxed{…}`, else
 * what follows the last `Answer:`, else the last line. null when there is none: an unfinished completion, an empty
 * answer, or an image placeholder in it.
 */
export function extractAnswer(completion: { readonly text: string; readonly finished: boolean }): string | null {
  if (!completion.finished) return null
  const text = completion.text.trim()
  const tagged = [...text.matchAll(/<answer>(.*?)<\/answer>/gis)].at(-1)?.[1]
  const answer = (tagged ?? lastBoxed(text) ?? lastLine(text)).trim()
  return normalizeAnswer(answer) === '' || imagePlaceholder(answer) !== null ? null : answer
}

/** Content of the last `\boxed{…}`, braces balanced; null when there is none or it is never closed. */
function lastBoxed(text: string): string | null {
  const start = text.lastIndexOf('\\boxed{')
  if (start < 0) return null
  const from = start + '\\boxed{'.length
  for (let i = from, depth = 1; i < text.length; i++) {
    if (text[i] === '{') depth++
    else if (text[i] === '}' && --depth === 0) return text.slice(from, i)
  }
  return null
}

function lastLine(text: string): string {
  const line = text.split('\n').at(-1)!
  return line.replace(/^.*\banswer\s*:\s*/i, '')
}
