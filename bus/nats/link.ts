/** Whether the server can be reached now, and news of that. */
import type { NatsConnection } from '@nats-io/nats-core'

/** What was under way when the connection broke; its answer will not come. */
export class LinkLostError extends Error {
  override name = 'LinkLostError'
  constructor() {
    super('the connection to the server broke')
  }
}

export class Link {
  readonly #connection: NatsConnection
  readonly #onLost = new Set<() => void>()
  readonly #onBack = new Set<() => void>()
  readonly #opening = new Set<Promise<unknown>>()
  #up = true

  constructor(connection: NatsConnection) {
    this.#connection = connection
    void this.#watch()
  }

  get up(): boolean {
    return this.#up && !this.#connection.isClosed()
  }

  /** Calls `listener` after each reconnection; returns the end of that. */
  onBack(listener: () => void): () => void {
    this.#onBack.add(listener)
    return () => this.#onBack.delete(listener)
  }

  /**
   * The result of `attempt`; rejects with LinkLostError at once if the connection breaks meanwhile, or is broken. What
   * the attempt opens all the same, nobody waits for any more: `discard` closes it.
   */
  async during<T>(attempt: () => Promise<T>, discard: (late: T) => void = () => {}): Promise<T> {
    if (!this.#up) throw new LinkLostError()
    let lost = () => {}
    try {
      return await new Promise<T>((resolve, reject) => {
        let over = false
        lost = () => {
          over = true
          reject(new LinkLostError())
        }
        this.#onLost.add(lost)
        const trying = attempt()
          .then((result) => (over ? discard(result) : resolve(result)), reject)
          .finally(() => this.#opening.delete(trying))
        this.#opening.add(trying)
      })
    } finally {
      this.#onLost.delete(lost)
    }
  }

  /**
   * Resolves when no attempt is under way. To wait for before the connection is closed: a subscription that is opened on
   * a closed connection leaves a timer of the client library behind, which keeps the program alive.
   */
  async idle(): Promise<void> {
    while (this.up && this.#opening.size > 0) await Promise.all(this.#opening)
  }

  async #watch(): Promise<void> {
    for await (const { type } of this.#connection.status()) {
      if (type === 'disconnect') this.#up = false
      if (type === 'reconnect') this.#up = true
      const listeners = type === 'disconnect' ? this.#onLost : type === 'reconnect' ? this.#onBack : []
      for (const listener of [...listeners]) listener()
    }
  }
}
