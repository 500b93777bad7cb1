/** A queue with one reader: what is pushed comes out of the async iterator in order. */
export class Channel<T> implements AsyncIterable<T> {
  readonly #items: T[] = []
  #ended = false
  #failure: unknown = null
  #wake: (() => void) | null = null

  push(item: T): void {
    if (this.#ended) return
    this.#items.push(item)
    this.#wake?.()
  }

  /** Nothing more comes; the reader still gets what waits. */
  end(): void {
    this.#ended = true
    this.#wake?.()
  }

  /** The reader gets what waits, then this error. */
  fail(error: unknown): void {
    this.#failure = error
    this.end()
  }

  /** Nothing more is read; returns what waited. */
  cut(): T[] {
    const unread = this.#items.splice(0)
    this.end()
    return unread
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<T> {
    for (;;) {
      while (this.#items.length > 0) yield this.#items.shift()!
      if (this.#failure !== null) throw this.#failure
      if (this.#ended) return
      await new Promise<void>((resolve) => {
        this.#wake = resolve
      })
      this.#wake = null
    }
  }
}
