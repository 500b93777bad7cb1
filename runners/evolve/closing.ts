/** What must be closed, last opened first. */
export class Closing {
  readonly #steps: (() => Promise<unknown>)[] = []

  add<T>(thing: T, close: (thing: T) => Promise<unknown>): T {
    this.#steps.push(() => close(thing))
    return thing
  }

  /** Closes everything even if something does not close; throws the first such error. */
  async close(): Promise<void> {
    const errors: unknown[] = []
    for (const step of this.#steps.toReversed()) await step().catch((error: unknown) => errors.push(error))
    if (errors.length > 0) throw errors[0]
  }
}
