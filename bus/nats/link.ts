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

  /** The result of `attempt`; rejects with LinkLostError at once if the connection breaks meanwhile, or is broken. */
  async during<T>(attempt: () => Promise<T>): Promise<T> {
    if (!this.#up) throw new LinkLostError()
    let lost = () => {}
    try {
      return await new Promise<T>((resolve, reject) => {
        lost = () => reject(new LinkLostError())
        this.#onLost.add(lost)
        attempt().then(resolve, reject)
      })
    } finally {
      this.#onLost.delete(lost)
    }
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
