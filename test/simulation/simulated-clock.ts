/** Simulated time that jumps from one deadline to the next: nothing ever waits for real. */
import type { Clock } from '../../bus/clock.ts'

interface Timer {
  readonly at: number
  readonly run: () => void
  cancelled: boolean
}

/** Every simulation begins here. */
export const START_MS = Date.UTC(2026, 0, 1)

export class SimulatedClock implements Clock {
  /** By deadline; those of one deadline in the order in which they were set. */
  readonly #timers: Timer[] = []
  #now = START_MS

  now(): number {
    return this.#now
  }

  setTimeout(run: () => void, ms: number): Timer {
    const timer = { at: this.#now + Math.max(0, ms), run, cancelled: false }
    let place = this.#timers.length
    while (place > 0 && this.#timers[place - 1]!.at > timer.at) place--
    this.#timers.splice(place, 0, timer)
    return timer
  }

  /** Unknown handles are ignored, as by the system's clock. */
  clearTimeout(handle: unknown): void {
    if (handle !== null && handle !== undefined) (handle as Timer).cancelled = true
  }

  /** Jumps to the next deadline and runs what is due then. False: there is none. */
  advance(): boolean {
    while (this.#timers[0]?.cancelled) this.#timers.shift()
    const next = this.#timers[0]
    if (!next) return false
    this.#now = next.at
    while (this.#timers[0] && this.#timers[0].at <= this.#now) {
      const timer = this.#timers.shift()!
      if (!timer.cancelled) timer.run()
    }
    return true
  }
}
