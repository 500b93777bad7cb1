/** The end of a bus, told to everything that waits on it. */
import { setMaxListeners } from 'node:events'
import { BusClosedError } from './errors.ts'

export class Lifetime {
  readonly #by: string
  readonly #stops = new Set<(reason: unknown) => void>()
  #closed = false

  constructor(by: string) {
    this.#by = by
  }

  /** Throws BusClosedError after `end`. */
  assertOpen(): void {
    if (this.#closed) throw new BusClosedError(this.#by)
  }

  get closed(): boolean {
    return this.#closed
  }

  /** Calls `stop` once, when the signal (if any) aborts or the bus closes; the returned function forgets it. */
  onEnd(signal: AbortSignal | null, stop: (reason: unknown) => void): () => void {
    const forget = () => {
      this.#stops.delete(run)
      signal?.removeEventListener('abort', onAbort)
    }
    const run = (reason: unknown) => {
      forget()
      stop(reason)
    }
    const onAbort = () => run(signal?.reason)
    if (signal?.aborted === true || this.#closed) {
      stop(signal?.aborted === true ? signal.reason : new BusClosedError(this.#by))
      return forget
    }
    this.#stops.add(run)
    if (signal) {
      // One signal ends hundreds of waits: that is no leak.
      setMaxListeners(0, signal)
      signal.addEventListener('abort', onAbort, { once: true })
    }
    return forget
  }

  end(): void {
    this.#closed = true
    for (const stop of [...this.#stops]) stop(new BusClosedError(this.#by))
  }
}
