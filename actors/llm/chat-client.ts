/** A client of any OpenAI-compatible endpoint: bounded concurrency, retries with backoff, and never an invented answer. */
import pLimit from 'p-limit'
import pRetry, { AbortError } from 'p-retry'
import { z } from 'zod'
import { within } from '../../bus/within.ts'

const optionsSchema = z.object({
  /** Base of the API, such as `http://127.0.0.1:8000/v1`. */
  url: z.url({ protocol: /^https?$/ }).transform((url) => url.replace(/\/+$/, '')),
  model: z.string().min(1),
  /** Sent as Bearer, never shown. */
  key: z.string().optional(),
  /** Requests at once. */
  concurrency: z.int().min(1).default(8),
  /** Tries after the first, with pauses of 0.5, 1, 2, 4, … s. */
  retries: z.int().min(0).default(5),
  timeoutMs: z.int().min(1).default(60_000),
  maxTokens: z.int().min(1).default(8),
})
export type ChatOptions = {
  readonly [K in keyof z.input<typeof optionsSchema>]?: z.input<typeof optionsSchema>[K] | undefined
} & {
  /** Told once when the endpoint stops to answer, and once when it does again. */
  readonly onWarning?: (message: string) => void
}

const replySchema = z.looseObject({
  choices: z.array(z.looseObject({ message: z.looseObject({ content: z.string() }) })).min(1),
})

/** The endpoint is away, refuses, or says what is no reply. */
export class LlmError extends Error {
  override name = 'LlmError'
}

/** A refusal that asking again does not change. */
class RefusedError extends LlmError {}

const FIRST_PAUSE_MS = 500

export class ChatClient {
  readonly model: string
  readonly #options: z.output<typeof optionsSchema>
  readonly #limit: ReturnType<typeof pLimit>
  readonly #onWarning: (message: string) => void
  #away = false

  /** Throws LlmError that names the option that is missing or wrong. */
  constructor({ onWarning = console.error, ...options }: ChatOptions) {
    const parsed = optionsSchema.safeParse(options)
    if (!parsed.success) {
      const { path, message } = parsed.error.issues[0]!
      throw new LlmError(`the ${path.join('.')} of the LLM: ${message}`)
    }
    this.#options = parsed.data
    this.model = parsed.data.model
    this.#limit = pLimit(parsed.data.concurrency)
    this.#onWarning = onWarning
  }

  /** Throws LlmError unless the endpoint answers and takes the key. */
  async check(): Promise<void> {
    const { status, text } = await this.#fetch('/models')
    // Some endpoints list nothing.
    if (status !== 200 && status !== 404 && status !== 405) throw this.#refusal(status, text)
  }

  /** The greedy answer to one message. Throws LlmError when all tries have failed, and the signal's reason. */
  ask(prompt: string, signal?: AbortSignal): Promise<string> {
    return this.#limit(() =>
      pRetry(() => this.#once(prompt, signal), {
        retries: this.#options.retries,
        minTimeout: FIRST_PAUSE_MS,
        onFailedAttempt: ({ error }) => {
          if (this.#away || signal?.aborted) return
          this.#away = true
          this.#onWarning(`${error.message}; trying again`)
        },
        ...(signal && { signal }),
      }),
    )
  }

  async #once(prompt: string, signal: AbortSignal | undefined): Promise<string> {
    const { model, maxTokens, url } = this.#options
    const messages = [{ role: 'user', content: prompt }]
    const body = JSON.stringify({ model, messages, temperature: 0, max_tokens: maxTokens })
    const { status, text } = await this.#fetch('/chat/completions', body, signal)
    if (status !== 200) {
      const error = this.#refusal(status, text)
      throw error instanceof RefusedError ? new AbortError(error) : error
    }
    const reply = replySchema.safeParse(parseJson(text))
    if (!reply.success) throw new LlmError(`the LLM at ${url} sent what is no chat completion: ${text.slice(0, 200)}`)
    if (this.#away) this.#onWarning(`the LLM at ${url} answers again`)
    this.#away = false
    return reply.data.choices[0]!.message.content
  }

  async #fetch(path: string, body?: string, signal?: AbortSignal): Promise<{ status: number; text: string }> {
    const { url, key, timeoutMs } = this.#options
    const request = {
      ...(body !== undefined && { method: 'POST', body }),
      headers: { 'content-type': 'application/json', ...(key && { authorization: `Bearer ${key}` }) },
    }
    const ask = async (until: AbortSignal) => {
      const response = await fetch(`${url}${path}`, { ...request, signal: until })
      return { status: response.status, text: await response.text() }
    }
    try {
      return await within(timeoutMs, ask, { signal })
    } catch (cause) {
      signal?.throwIfAborted()
      throw new LlmError(`the LLM at ${url} does not answer (${reasonOf(cause)})`, { cause })
    }
  }

  #refusal(status: number, text: string): LlmError {
    const message = `the LLM at ${this.#options.url} answered ${status}${text === '' ? '' : `: ${text.slice(0, 200)}`}`
    return status === 408 || status === 429 || status >= 500 ? new LlmError(message) : new RefusedError(message)
  }
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}

/** `fetch` hides the reason in causes. */
function reasonOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error)
  if (error.cause instanceof Error) return reasonOf(error.cause)
  return (error as NodeJS.ErrnoException).code?.toString() ?? error.message
}
