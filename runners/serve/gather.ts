/** Questions that come close together share a batch, and so do those that come while a batch is computed. */

export interface GatherOptions {
  /** How long the first question waits for others. */
  readonly windowMs: number
  /** Batches under way at once. */
  readonly parallel: number
  /** Samples of one batch; a question with more goes alone. */
  readonly maxRows: number
}

interface Waiting<Q, A> {
  readonly question: Q
  readonly rows: number
  resolve(answer: A): void
  reject(error: unknown): void
}

export class Gatherer<Q, A> {
  readonly #answer: (questions: readonly Q[]) => Promise<readonly (A | Error)[]>
  readonly #options: GatherOptions
  #waiting: Waiting<Q, A>[] = []
  #running = 0
  #timer: NodeJS.Timeout | null = null
  #batches = 0
  #questions = 0

  constructor(answer: (questions: readonly Q[]) => Promise<readonly (A | Error)[]>, options: GatherOptions) {
    this.#answer = answer
    this.#options = options
  }

  /** For those who watch. */
  get counts(): { readonly questions: number; readonly batches: number; readonly waiting: number } {
    return { questions: this.#questions, batches: this.#batches, waiting: this.#waiting.length }
  }

  /** The answer; a question whose signal aborts before its batch has begun is dropped. */
  ask(question: Q, rows: number, signal: AbortSignal): Promise<A> {
    return new Promise((resolve, reject) => {
      const waiting: Waiting<Q, A> = { question, rows, resolve, reject }
      const drop = (): void => {
        this.#waiting = this.#waiting.filter((w) => w !== waiting)
        reject(signal.reason as Error)
      }
      if (signal.aborted) return drop()
      signal.addEventListener('abort', drop, { once: true })
      this.#waiting.push(waiting)
      this.#questions++
      if (this.#running < this.#options.parallel)
        this.#timer ??= setTimeout(() => this.#begin(), this.#options.windowMs)
    })
  }

  #begin(): void {
    this.#timer = null
    if (this.#waiting.length === 0 || this.#running >= this.#options.parallel) return
    const batch: Waiting<Q, A>[] = []
    let rows = 0
    while (this.#waiting.length > 0 && (batch.length === 0 || rows + this.#waiting[0]!.rows <= this.#options.maxRows)) {
      rows += this.#waiting[0]!.rows
      batch.push(this.#waiting.shift()!)
    }
    this.#running++
    this.#batches++
    void this.#run(batch).finally(() => {
      this.#running--
      this.#begin()
    })
    // What did not fit need not wait for another question.
    this.#begin()
  }

  async #run(batch: readonly Waiting<Q, A>[]): Promise<void> {
    try {
      const answers = await this.#answer(batch.map(({ question }) => question))
      batch.forEach(({ resolve, reject }, i) => {
        const answer = answers[i]!
        if (answer instanceof Error) reject(answer)
        else resolve(answer)
      })
    } catch (error) {
      for (const { reject } of batch) reject(error)
    }
  }
}
