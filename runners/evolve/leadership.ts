/** Who trains a run: its own process, or for a while one that stood by. */
import { systemClock } from '../../bus/clock.ts'
import type { Bus } from '../../bus/bus.ts'
import { watchLease } from '../../actors/lease.ts'
import { OPTIMIZER_LEASE } from '../../actors/optimizer.ts'
import { PROCESS_NAME } from './instance.ts'
import { LEADER } from './optimizer.ts'

export interface LeadershipOptions {
  readonly onNote: (message: string) => void
  /** Another process of the same run, such as a second `--resume`, has taken over for good. */
  readonly onSuperseded: () => void
}

export class Leadership {
  readonly #stop = new AbortController()
  readonly #watching: Promise<void>

  constructor(bus: Bus, { onNote, onSuperseded }: LeadershipOptions) {
    let led = false
    let leader: string | null = null
    const lease = { bus, clock: systemClock, key: OPTIMIZER_LEASE }
    const watching = watchLease(lease, this.#stop.signal, ({ holder }) => {
      const mine = holder?.instance.startsWith(`optimizer.${PROCESS_NAME}-`) === true
      if (mine && led && leader !== holder.instance) onNote('the Optimizer of this process leads again')
      if (holder && !mine && led && holder.name === LEADER) onSuperseded()
      else if (holder && !mine && led && holder.instance !== leader) onNote(`${holder.instance} trains from now on`)
      led ||= mine
      if (holder) leader = holder.instance
    })
    this.#watching = watching.catch(() => {}) // The bus is gone: whoever uses it says so.
  }

  async close(): Promise<void> {
    this.#stop.abort()
    await this.#watching
  }
}
