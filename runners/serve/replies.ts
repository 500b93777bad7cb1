/** Replies in the form of OpenAI's API. */
import { randomUUID } from 'node:crypto'
import type { Sample } from '../../models/model.ts'
import type { Answered } from './backend.ts'

/** What all parts of one reply share. */
export interface ReplyHead {
  readonly id: string
  /** Seconds since 1970. */
  readonly created: number
}

export const newReply = (): ReplyHead => ({
  id: `chatcmpl-${randomUUID().replaceAll('-', '')}`,
  created: Math.floor(Date.now() / 1000),
})

export interface TokenLogprob {
  readonly token: string
  readonly logprob: number
  readonly bytes: readonly number[] | null
  readonly top_logprobs: readonly never[]
}

/** `text` of a token that is a part of a character only has no bytes of its own. */
export const tokenLogprob = (text: string, logprob: number): TokenLogprob => ({
  token: text,
  logprob,
  bytes: text.includes('\uFFFD') ? null : [...Buffer.from(text, 'utf8')],
  top_logprobs: [],
})

export const finishReason = ({ finished }: Sample): 'stop' | 'length' => (finished ? 'stop' : 'length')

export interface Usage {
  readonly prompt_tokens: number
  readonly completion_tokens: number
  readonly total_tokens: number
}

export function usageOf({ generated: { promptTokens, samples } }: Answered): Usage {
  const completion = samples.reduce((sum, { tokens }) => sum + tokens.length, 0)
  return { prompt_tokens: promptTokens, completion_tokens: completion, total_tokens: promptTokens + completion }
}

/** The reply as a whole. `tokenText` null: without logprobs. */
export function wholeReply(head: ReplyHead, answered: Answered, tokenText: ((token: number) => string) | null) {
  return {
    id: head.id,
    object: 'chat.completion' as const,
    created: head.created,
    model: answered.model,
    choices: answered.generated.samples.map((sample, index) => ({
      index,
      message: { role: 'assistant' as const, content: sample.text, refusal: null },
      logprobs: tokenText && {
        content: sample.tokens.map((token, t) => tokenLogprob(tokenText(token), sample.logprobs[t]!)),
        refusal: null,
      },
      finish_reason: finishReason(sample),
    })),
    usage: usageOf(answered),
  }
}

export interface Delta {
  readonly role?: 'assistant'
  readonly content?: string
}

/** One part of a streamed reply. */
export function chunk(
  head: ReplyHead,
  model: string,
  index: number,
  delta: Delta,
  more: { readonly logprobs?: readonly TokenLogprob[]; readonly finish?: 'stop' | 'length' } = {},
) {
  const logprobs = more.logprobs ? { content: more.logprobs, refusal: null } : null
  const choices = [{ index, delta, logprobs, finish_reason: more.finish ?? null }]
  return { id: head.id, object: 'chat.completion.chunk' as const, created: head.created, model, choices }
}

/** The last part of a streamed reply, for clients that ask for it. */
export function usageChunk({ id, created }: ReplyHead, model: string, usage: Usage) {
  return { id, object: 'chat.completion.chunk' as const, created, model, choices: [], usage }
}
