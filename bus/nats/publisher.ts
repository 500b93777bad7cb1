/**
 * Publishing to JetStream with one subscription for all acknowledgements. The client library's `publish` is a request
 * of its own each time: a timer, a race of promises and an error with its stack.
 */
import { JetStreamApiError, PubHeaders, type ApiError } from '@nats-io/jetstream'
import { createInbox, errors, headers, type Msg, type MsgHdrs, type NatsConnection } from '@nats-io/nats-core'

export interface PublishOptions {
  /** The server absorbs a second message of this id within its window. */
  readonly id?: string
  /** Refused when there is a message of the subject already. */
  readonly first?: boolean
}

export interface Published {
  /** The server knew the id. */
  readonly duplicate: boolean
}

interface Unanswered {
  readonly subject: string
  /** By `performance.now()`. */
  readonly deadline: number
  resolve(published: Published): void
  reject(error: unknown): void
}

/** What the server answers. */
interface Acknowledgement {
  readonly duplicate?: boolean
  readonly error?: ApiError
}

/** How often what is unanswered is looked through. */
const SWEEP_MS = 500

export class Publisher {
  readonly #connection: NatsConnection
  readonly #inbox: string
  readonly #timeoutMs: number
  readonly #unanswered = new Map<string, Unanswered>()
  #serial = 0

  /** `inboxPrefix`: where this user may listen. */
  constructor(connection: NatsConnection, inboxPrefix: string, timeoutMs: number) {
    this.#connection = connection
    this.#timeoutMs = timeoutMs
    this.#inbox = createInbox(inboxPrefix)
    connection.subscribe(`${this.#inbox}.*`, {
      callback: (error, message) => {
        if (!error) this.#hear(message)
      },
    })
    void this.#watch()
  }

  /**
   * Resolves when the stream has the message. Rejects with JetStreamApiError when it refuses it, with TimeoutError when
   * no answer comes, with NoRespondersError when there is no such stream (or JetStream is away), with
   * PermissionViolationError when this user may not, with ClosedConnectionError when the connection is closed.
   */
  publish(subject: string, bytes: Uint8Array, options: PublishOptions = {}): Promise<Published> {
    return new Promise((resolve, reject) => {
      const token = (++this.#serial).toString(36)
      this.#connection.publish(subject, bytes, { reply: `${this.#inbox}.${token}`, headers: headersOf(options) })
      const deadline = performance.now() + this.#timeoutMs
      this.#unanswered.set(token, { subject, deadline, resolve, reject })
    })
  }

  #hear(message: Msg): void {
    const token = message.subject.slice(this.#inbox.length + 1)
    const waiting = this.#unanswered.get(token)
    if (!waiting) return
    this.#unanswered.delete(token)
    if (message.data.length === 0 && message.headers?.code === 503) {
      waiting.reject(new errors.NoRespondersError(waiting.subject))
      return
    }
    try {
      const { error, duplicate = false } = message.json<Acknowledgement>()
      if (error) waiting.reject(new JetStreamApiError(error))
      else waiting.resolve({ duplicate })
    } catch (error) {
      waiting.reject(error)
    }
  }

  /** A message that is not permitted is not answered; the connection tells of it, by its subject. */
  async #watch(): Promise<void> {
    const sweeping = setInterval(() => this.#sweep(), SWEEP_MS).unref()
    for await (const status of this.#connection.status()) {
      if (status.type !== 'error' || !(status.error instanceof errors.PermissionViolationError)) continue
      const { operation, subject } = status.error
      if (operation === 'publish') this.#rejectThose(status.error, (waiting) => waiting.subject === subject)
    }
    clearInterval(sweeping)
    this.#rejectThose(new errors.ClosedConnectionError(), () => true)
  }

  #rejectThose(error: Error, which: (waiting: Unanswered) => boolean): void {
    for (const [token, waiting] of this.#unanswered) {
      if (!which(waiting)) continue
      this.#unanswered.delete(token)
      waiting.reject(error)
    }
  }

  #sweep(): void {
    const now = performance.now()
    this.#rejectThose(new errors.TimeoutError(), ({ deadline }) => deadline <= now)
  }
}

function headersOf({ id, first }: PublishOptions): MsgHdrs {
  const all = headers()
  if (id !== undefined) all.set(PubHeaders.MsgIdHdr, id)
  if (first) all.set(PubHeaders.ExpectedLastSubjectSequenceHdr, '0')
  return all
}
