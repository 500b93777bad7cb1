/** The server's routes: `/v1/chat/completions`, `/v1/models`, `/health`. */
import { createHash, randomInt, timingSafeEqual } from 'node:crypto'
import { Hono, type Context } from 'hono'
import { bodyLimit } from 'hono/body-limit'
import { streamSSE } from 'hono/streaming'
import { ApiError, asApiError, invalid } from './api-error.ts'
import type { Answered, Ask, Backend } from './backend.ts'
import { parseChatRequest, type ChatRequest } from './chat-schema.ts'
import { Gatherer } from './gather.ts'
import { readPicture } from './picture.ts'
import { promptOf } from './prompt.ts'
import { newReply, usageOf, wholeReply } from './replies.ts'
import { ChatStream } from './stream.ts'

export interface AppOptions {
  /** Clients must bear it; null = anybody may ask. */
  readonly apiKey: string | null
  readonly maxBodyBytes: number
  /** Most tokens of an answer, and how many when the client does not say. */
  readonly maxTokens: number
  /** Whether http(s) addresses of pictures are fetched. */
  readonly fetchImages: boolean
  /** Told of what went wrong on this side. */
  readonly onError: (error: ApiError) => void
  /** Aborts what is under way. */
  readonly signal: AbortSignal
}

/** Questions that come within this time share a batch. */
const WINDOW_MS = 5
const MAX_ROWS = 256
const MAX_SAMPLES = 64

/** The app over a backend; whoever serves it closes the backend. */
export function createApp(backend: Backend, options: AppOptions): Hono {
  const gatherer = new Gatherer<Ask, Answered>((asks) => backend.answer(asks), {
    windowMs: WINDOW_MS,
    parallel: backend.parallel,
    maxRows: MAX_ROWS,
  })
  const app = new Hono()
  const started = Math.floor(Date.now() / 1000)
  const fail = (c: Context, error: unknown): Response => {
    const known = asApiError(error)
    if (known.status >= 500) options.onError(known)
    return c.json(known.body, known.status)
  }
  app.onError((error, c) => fail(c, error))
  app.notFound((c) => fail(c, new ApiError(404, 'not_found', `there is no ${c.req.method} ${c.req.path}`)))
  app.get('/health', async (c) => c.json({ status: 'ok', model: (await backend.models())[0], ...gatherer.counts }))
  app.use('/v1/*', async (c, next) => {
    checkKey(options.apiKey, c.req.header('authorization'))
    await next()
  })
  app.get('/v1/models', async (c) => {
    const data = (await backend.models()).map((id) => ({ id, object: 'model', created: started, owned_by: 'visplay' }))
    return c.json({ object: 'list', data })
  })
  app.get('/v1/models/:id{.+}', async (c) => {
    const id = c.req.param('id')
    await backend.check(id)
    return c.json({ id, object: 'model', created: started, owned_by: 'visplay' })
  })
  const limit = bodyLimit({
    maxSize: options.maxBodyBytes,
    onError: (c) => {
      // The rest of the body is not read, so that nothing can follow on this connection.
      c.header('connection', 'close')
      return fail(c, new ApiError(413, 'too_large', `a request has at most ${options.maxBodyBytes} bytes`))
    },
  })
  app.post('/v1/chat/completions', limit, async (c) => {
    // A browser asks before it sends this type to another site.
    if (!/^application\/json\b/i.test(c.req.header('content-type') ?? ''))
      throw new ApiError(415, 'unsupported_media_type', 'send application/json')
    const request = parseChatRequest(await c.req.text())
    await backend.check(request.model)
    const signal = AbortSignal.any([options.signal, c.req.raw.signal])
    const ask = await askOf(request, options, signal)
    return request.stream ? streamed(c, ask, request, signal) : whole(c, ask, request, signal)
  })

  async function whole(c: Context, ask: Ask, request: ChatRequest, signal: AbortSignal): Promise<Response> {
    const answered = await gatherer.ask(ask, ask.samples, signal)
    return c.json(wholeReply(newReply(), answered, request.logprobs ? backend.tokenText : null))
  }

  function streamed(c: Context, ask: Ask, request: ChatRequest, signal: AbortSignal): Response {
    return streamSSE(c, async (sse) => {
      const head = newReply()
      const gone = new AbortController()
      sse.onAbort(() => gone.abort(new Error('the client has left')))
      const send = (part: object): void => void sse.writeSSE({ data: JSON.stringify(part) })
      try {
        const stream = new ChatStream(head, ask.model, ask.samples, request.logprobs ? backend.tokenText : null, send)
        stream.begin()
        const listening: Ask = { ...ask, onToken: (token) => stream.token(token) }
        const answered = await gatherer.ask(listening, ask.samples, AbortSignal.any([signal, gone.signal]))
        stream.end(answered)
        if (request.stream_options?.include_usage) {
          const { id, created } = head
          const { model } = answered
          send({ id, object: 'chat.completion.chunk', created, model, choices: [], usage: usageOf(answered) })
        }
        await sse.writeSSE({ data: '[DONE]' })
      } catch (error) {
        if (gone.signal.aborted) return
        const known = asApiError(error)
        if (known.status >= 500) options.onError(known)
        await sse.writeSSE({ data: JSON.stringify(known.body) })
      }
    })
  }

  return app
}

/** Compared by hash, so that time tells nothing. */
function checkKey(key: string | null, header: string | undefined): void {
  if (key === null) return
  const sum = (text: string) => createHash('sha256').update(text).digest()
  const given = /^Bearer (.+)$/.exec(header ?? '')?.[1]
  if (given === undefined) throw new ApiError(401, 'invalid_api_key', 'give the key: Authorization: Bearer KEY')
  if (!timingSafeEqual(sum(given), sum(key))) throw new ApiError(401, 'invalid_api_key', 'the key is wrong')
}

async function askOf(request: ChatRequest, options: AppOptions, signal: AbortSignal): Promise<Ask> {
  const { maxTokens, maxBodyBytes, fetchImages } = options
  const { text, image } = promptOf(request.messages)
  const samples = request.n ?? 1
  if (samples > MAX_SAMPLES) throw invalid('n', `at most ${MAX_SAMPLES}`)
  const wanted = request.max_completion_tokens ?? request.max_tokens ?? maxTokens
  if (wanted > maxTokens) {
    const param = request.max_completion_tokens ? 'max_completion_tokens' : 'max_tokens'
    throw invalid(param, `this server answers with at most ${maxTokens} tokens (--max-tokens)`)
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
