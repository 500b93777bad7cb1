/** Requests that nobody will answer any more: follows `dead` events, so that a caller does not wait for ever. */
import type { LogRecord } from '../bus/bus.ts'
import type { TaskKind } from '../bus/messages.ts'
import { deadId } from '../bus/subjects.ts'

/** Trying again would not help: a task that fails with it is given up at once. */
export class LostCauseError extends Error {
  override name = 'LostCauseError'
}

/** A task that this work depends on was given up. */
export class DeadTaskError extends LostCauseError {
  override name = 'DeadTaskError'
  constructor(kind: string, id: string, cause: string) {
    super(`${kind} ${id} was given up: ${cause}`)
  }
}

type Death = LogRecord<'dead'> | LogRecord<'retried'>
/** Tells of each such record of the log, old and new, until the signal aborts; a reader that breaks begins again. */
export type ReadDeaths = (signal: AbortSignal, tell: (death: Death) => void) => Promise<void>

export class DeadTasks {
  readonly #read: ReadDeaths
  readonly #causes = new Map<string, string>()
  readonly #waiting = new Map<string, (cause: string) => void>()
  readonly #closing = new AbortController()
  #following = false

  constructor(read: ReadDeaths) {
    this.#read = read
  }

  /** Runs `wait` with a signal; rejects, and aborts that signal, when the task is given up or `signal` aborts. */
  async unless<T>(
    kind: TaskKind,
    id: string,
    signal: AbortSignal,
    wait: (alive: AbortSignal) => Promise<T>,
  ): Promise<T> {
    signal.throwIfAborted()
    this.#follow()
    const key = deadId(kind, id)
    const controller = new AbortController()
    const abort = () => controller.abort(signal.reason)
    const bury = (cause: string) => controller.abort(new DeadTaskError(kind, id, cause))
    signal.addEventListener('abort', abort, { once: true })
    this.#waiting.set(key, bury)
    const known = this.#causes.get(key)
    if (known !== undefined) bury(known)
    try {
      controller.signal.throwIfAborted()
      return await wait(controller.signal)
    } catch (error) {
      // A carrier may reject with an error of its own when the signal aborts: the reason is what matters.
      controller.signal.throwIfAborted()
      throw error
    } finally {
      signal.removeEventListener('abort', abort)
      if (this.#waiting.get(key) === bury) this.#waiting.delete(key)
    }
  }

  close(): void {
    this.#closing.abort()
  }

  #follow(): void {
    if (this.#following) return
    this.#following = true
    void this.#read(this.#closing.signal, ({ event, message }) => {
      const key = deadId(message.data.kind as TaskKind, message.data.id)
      if (event === 'retried') this.#causes.delete(key)
      else {
        this.#causes.set(key, message.data.cause)
        this.#waiting.get(key)?.(message.data.cause)
      }
    })
  }
}
