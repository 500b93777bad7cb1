/** Answers one chat request, as a whole or streamed; requests share batches. */
import { randomInt } from 'node:crypto'
import type { Context } from 'hono'
import { streamSSE } from 'hono/streaming'
import { asApiError, invalid, type ApiError } from './api-error.ts'
import type { Answered, Ask, Backend } from './backend.ts'
import type { ChatRequest } from './chat-schema.ts'
import { Gatherer } from './gather.ts'
import { readPicture } from './picture.ts'
import { promptOf } from './prompt.ts'
import { newReply, usageOf, wholeReply } from './replies.ts'
import { ChatStream } from './stream.ts'

export interface ChatOptions {
  /** Most tokens of an answer, and how many when the client does not say. */
  readonly maxTokens: number
  /** Whether http(s) addresses of pictures are fetched. */
  readonly fetchImages: boolean
  /** Of a picture that is fetched. */
  readonly maxBodyBytes: number
  /** Told of what went wrong on this side. */
  readonly onError: (error: ApiError) => void
  /** Aborts what is under way. */
  readonly signal: AbortSignal
}

/** Questions that come within this time share a batch. */
const WINDOW_MS = 5
const MAX_ROWS = 256
const MAX_SAMPLES = 64
/** Of all samples of a request together: their keys and values are kept in memory. */
const MAX_REQUEST_TOKENS = 16_384

export class Chat {
  readonly #backend: Backend
  readonly #options: ChatOptions
  readonly #gatherer: Gatherer<Ask, Answered>

  constructor(backend: Backend, options: ChatOptions) {
    this.#backend = backend
    this.#options = options
    this.#gatherer = new Gatherer<Ask, Answered>((asks) => backend.answer(asks), {
      windowMs: WINDOW_MS,
      parallel: backend.parallel,
      maxRows: MAX_ROWS,
    })
  }

  /** Questions and batches so far, and questions that wait. */
  get counts() {
    return this.#gatherer.counts
  }

  /** Throws ApiError for what cannot be answered. */
  async answer(c: Context, request: ChatRequest): Promise<Response> {
    await this.#backend.check(request.model)
    const signal = AbortSignal.any([this.#options.signal, c.req.raw.signal])
    const ask = await askOf(request, this.#options, signal)
    const tokenText = request.logprobs ? this.#backend.tokenText : null
    if (request.stream) return this.#streamed(c, ask, request, tokenText, signal)
    const answered = await this.#gatherer.ask(ask, ask.samples, signal)
    return c.json(wholeReply(newReply(), answered, tokenText))
  }

  #streamed(
    c: Context,
    ask: Ask,
    request: ChatRequest,
    tokenText: Backend['tokenText'] | null,
    signal: AbortSignal,
  ): Response {
    return streamSSE(c, async (sse) => {
      const head = newReply()
      const gone = new AbortController()
      sse.onAbort(() => gone.abort(new Error('the client has left')))
      const send = (part: object): void => void sse.writeSSE({ data: JSON.stringify(part) })
      try {
        const stream = new ChatStream(head, ask.model, ask.samples, tokenText, send)
        stream.begin()
        const listening: Ask = { ...ask, onToken: (token) => stream.token(token) }
        const answered = await this.#gatherer.ask(listening, ask.samples, AbortSignal.any([signal, gone.signal]))
        stream.end(answered, request.stream_options?.include_usage ? usageOf(answered) : null)
        await sse.writeSSE({ data: '[DONE]' })
      } catch (error) {
        if (gone.signal.aborted) return
        const known = asApiError(error)
        if (known.status >= 500) this.#options.onError(known)
        await sse.writeSSE({ data: JSON.stringify(known.body) })
      }
    })
  }
}

async function askOf(request: ChatRequest, options: ChatOptions, signal: AbortSignal): Promise<Ask> {
  const { maxTokens, maxBodyBytes, fetchImages } = options
  const { text, image } = promptOf(request.messages)
  const samples = request.n ?? 1
  if (samples > MAX_SAMPLES) throw invalid('n', `at most ${MAX_SAMPLES}`)
  const wanted = request.max_completion_tokens ?? request.max_tokens ?? maxTokens
  const param = request.max_completion_tokens ? 'max_completion_tokens' : 'max_tokens'
  if (wanted > maxTokens) {
    throw invalid(param, `this server answers with at most ${maxTokens} tokens (--max-tokens)`)
  }
  if (samples * wanted > MAX_REQUEST_TOKENS) {
    throw invalid(param, `${samples} samples of ${wanted} tokens are more than ${MAX_REQUEST_TOKENS} together`)
  }
  const temperature = request.temperature ?? 1
  const limits = { remote: fetchImages, maxBytes: maxBodyBytes }
  return {
    model: request.model,
    picture: image === null ? null : await readPicture(image, limits, signal),
    prompt: text,
    samples,
    maxNewTokens: wanted,
    temperature,
    // A greedy answer does not depend on it.
    seed: temperature === 0 ? 0 : (request.seed ?? randomInt(2 ** 31)),
  }
}
