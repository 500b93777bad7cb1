/** The server's routes: `/v1/chat/completions`, `/v1/models`, `/health`. */
import { createHash, timingSafeEqual } from 'node:crypto'
import { Hono, type Context } from 'hono'
import { bodyLimit } from 'hono/body-limit'
import { ApiError, asApiError } from './api-error.ts'
import type { Backend } from './backend.ts'
import { Chat, type ChatOptions } from './chat.ts'
import { parseChatRequest } from './chat-schema.ts'

export interface AppOptions extends ChatOptions {
  /** Clients must bear it; null = anybody may ask. */
  readonly apiKey: string | null
  /** Of a request, and of a picture that is fetched. */
  readonly maxBodyBytes: number
}

/** The app over a backend; whoever serves it closes the backend. */
export function createApp(backend: Backend, options: AppOptions): Hono {
  const chat = new Chat(backend, options)
  const app = new Hono()
  const started = Math.floor(Date.now() / 1000)
  const fail = (c: Context, error: unknown): Response => {
    const known = asApiError(error)
    if (known.status >= 500) options.onError(known)
    return c.json(known.body, known.status)
  }
  const model = (id: string) => ({ id, object: 'model', created: started, owned_by: 'visplay' })
  app.onError((error, c) => fail(c, error))
  app.notFound((c) => fail(c, new ApiError(404, 'not_found', `there is no ${c.req.method} ${c.req.path}`)))
  app.get('/health', async (c) => c.json({ status: 'ok', model: (await backend.models())[0], ...chat.counts }))
  app.use('/v1/*', async (c, next) => {
    checkKey(options.apiKey, c.req.header('authorization'))
    await next()
  })
  app.get('/v1/models', async (c) => c.json({ object: 'list', data: (await backend.models()).map(model) }))
  app.get('/v1/models/:id{.+}', async (c) => {
    const id = c.req.param('id')
    await backend.check(id)
    return c.json(model(id))
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
    return chat.answer(c, parseChatRequest(await c.req.text()))
  })
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
