/**
 * One write to the socket for all that is sent in one turn of the event loop. The client library writes as soon as the
 * running microtask ends, which for concurrent senders is one system call per message: most of a message's cost.
 */
export class Turns {
  #next: Promise<void> | null = null

  /** Resolves at the end of this turn, for everyone who waits for it together and in the order of their calls. */
  next(): Promise<void> {
    this.#next ??= new Promise((resolve) => {
      setImmediate(() => {
        this.#next = null
        resolve()
      })
    })
    return this.#next
  }
}
