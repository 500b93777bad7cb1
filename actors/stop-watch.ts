/** Where the time of a step goes. */
import type { Clock } from '../bus/clock.ts'

export class StopWatch {
  readonly #clock: Clock
  #started = 0
  #last = 0
  #laps: Record<string, number> = {}

  constructor(clock: Clock) {
    this.#clock = clock
  }

  start(): void {
    this.#started = this.#last = this.#clock.now()
    this.#laps = {}
  }

  lap(name: string): void {
    const now = this.#clock.now()
    this.#laps[`seconds/${name}`] = (now - this.#last) / 1000
    this.#last = now
  }

  get laps(): Readonly<Record<string, number>> {
    return this.#laps
  }

  /** Since the start. */
  get seconds(): number {
    return (this.#clock.now() - this.#started) / 1000
  }
}
