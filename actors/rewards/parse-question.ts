/** What a Questioner completion says. */
import { normalizeAnswer } from './normalize.ts'
import { imagePlaceholder } from './placeholder.ts'

export type ParsedQuestion =
  | { readonly question: string; readonly silver: string; readonly type: string; readonly malformed: null }
  | { readonly malformed: string }

const MIN_QUESTION_WORDS = 3
const MAX_SILVER_WORDS = 8

/**
 * Question, silver answer and type of a completion, or why it is malformed. Understood, in this order:
 * `<type>…</type><question>…</question><answer>…</answer>` (type optional); lines `Question: …` and `Answer: …`; and
 * the compact form, where everything up to the first question mark is the question and the rest the silver answer.
 * A type that is not given is the question's first two words, so that types are counted without labels.
 */
export function parseQuestion(completion: { readonly text: string; readonly finished: boolean }): ParsedQuestion {
  if (!completion.finished) return { malformed: 'unfinished completion' }
  const text = completion.text.trim()
  const placeholder = imagePlaceholder(text)
  if (placeholder !== null) return { malformed: `image placeholder ${placeholder} in the text` }
  const parts = split(text)
  if ('malformed' in parts) return parts
  const question = tidy(parts.question)
  const silver = tidy(parts.silver)
  const malformed = complaint(question, silver)
  if (malformed !== null) return { malformed }
  return { question, silver, type: tidy(parts.type ?? '').toLowerCase() || typeOf(question), malformed: null }
}

/** The label-free type of a question: its first two words, lower-cased ('what color', 'how many'). */
export function typeOf(question: string): string {
  return words(question.toLowerCase().replace(/[^\p{L}\p{N}\s]/gu, ''))
    .slice(0, 2)
    .join(' ')
}

interface Parts {
  readonly question: string
  readonly silver: string
  readonly type: string | null
}

function split(text: string): Parts | { readonly malformed: string } {
  if (/<question>/i.test(text)) {
    const question = tag(text, 'question')
    const silver = tag(text, 'answer')
    if (question === null) return { malformed: 'the <question> tag is not closed' }
    if (silver === null) return { malformed: 'no <answer>…</answer> after the question' }
    return { question, silver, type: tag(text, 'type') }
  }
  const lines = /^question\s*:(?<question>.*?)\banswer\s*:(?<silver>.*)$/is.exec(text)?.groups
  if (lines) return { question: lines.question!, silver: lines.silver!, type: null }
  const mark = text.indexOf('?')
  if (mark < 0) return { malformed: 'no question mark' }
  return { question: text.slice(0, mark + 1), silver: text.slice(mark + 1), type: null }
}

function tag(text: string, name: string): string | null {
  return new RegExp(`<${name}>(.*?)</${name}>`, 'is').exec(text)?.[1] ?? null
}

function complaint(question: string, silver: string): string | null {
  const marks = [...`${question}${silver}`].filter((char) => char === '?').length
  if (normalizeAnswer(question) === '') return 'empty question'
  if (!question.includes('?')) return 'no question mark'
  if (marks > 1) return 'more than one question mark'
  if (words(question).length < MIN_QUESTION_WORDS) return `question shorter than ${MIN_QUESTION_WORDS} words`
  if (normalizeAnswer(silver) === '') return 'empty silver answer'
  if (words(silver).length > MAX_SILVER_WORDS) return `silver answer longer than ${MAX_SILVER_WORDS} words`
  return null
}

/** Words of a text; a question mark that stands alone ('color ?') is none. */
function words(text: string): string[] {
  return text.split(/\s+/u).filter((word) => /[\p{L}\p{N}]/u.test(word))
}

function tidy(text: string): string {
  return text.replace(/\s+/gu, ' ').trim()
}
