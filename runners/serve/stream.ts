/** Tokens as they are sampled → the parts of a streamed reply. */
import type { SampledToken } from '../../models/model.ts'
import type { Answered } from './backend.ts'
import {
  chunk,
  finishReason,
  tokenLogprob,
  usageChunk,
  type ReplyHead,
  type TokenLogprob,
  type Usage,
} from './replies.ts'

interface Sent {
  text: string
  tokens: number
  logprobs: TokenLogprob[]
}

/** The parts of one reply: text that is settled goes at once, the rest when the sample is finished. */
export class ChatStream {
  readonly #samples: Sent[]

  /** `tokenText` null: without logprobs. */
  constructor(
    private readonly head: ReplyHead,
    private readonly model: string,
    samples: number,
    private readonly tokenText: ((token: number) => string) | null,
    private readonly send: (part: object) => void,
  ) {
    this.#samples = Array.from({ length: samples }, () => ({ text: '', tokens: 0, logprobs: [] }))
  }

  begin(): void {
    this.#samples.forEach((_, index) =>
      this.send(chunk(this.head, this.model, index, { role: 'assistant', content: '' })),
    )
  }

  /** A token that was heard before (a batch was computed again) says nothing new. */
  token({ sample, position, token, logprob, text }: SampledToken): void {
    const sent = this.#samples[sample]!
    if (position !== sent.tokens) return
    sent.tokens++
    if (this.tokenText) sent.logprobs.push(tokenLogprob(this.tokenText(token), logprob))
    this.#delta(sample, text)
  }

  /** What was not sent yet, how each sample ended, and the usage where it is wanted. */
  end(answered: Answered, usage: Usage | null): void {
    for (const [index, sample] of answered.generated.samples.entries()) {
      const sent = this.#samples[index]!
      if (this.tokenText) {
        for (let t = sent.tokens; t < sample.tokens.length; t++)
          sent.logprobs.push(tokenLogprob(this.tokenText(sample.tokens[t]!), sample.logprobs[t]!))
      }
      if (!sample.text.startsWith(sent.text)) throw new Error('the text of a sample changed while it was streamed')
      this.#delta(index, sample.text, sent.logprobs.length > 0)
      this.send(chunk(this.head, answered.model, index, {}, { finish: finishReason(sample) }))
    }
    if (usage) this.send(usageChunk(this.head, answered.model, usage))
  }

  #delta(index: number, text: string, evenEmpty = false): void {
    const sent = this.#samples[index]!
    const content = text.slice(sent.text.length)
    if (content === '' && !evenEmpty) return
    const logprobs = this.tokenText ? { logprobs: sent.logprobs } : {}
    sent.text = text
    sent.logprobs = []
    this.send(chunk(this.head, this.model, index, { content }, logprobs))
  }
}
