/** Work queue of one task kind: credit, redelivery, dedupe. Synchronous and deterministic. */
import type { Clock } from '../clock.ts'
import { MAX_DELIVERIES } from '../limits.ts'
import type { Fate } from './faults.ts'

/** Deliveries of a task that may go wrong: bad luck alone must not kill it. */
const MOST_MISFORTUNES = MAX_DELIVERIES - 2

/** A task in the queue; `done` once acknowledged or given up. */
export interface QueuedTask {
  readonly id: string
  readonly bytes: Uint8Array
  deliveries: number
  done: boolean
}

/** Someone who takes tasks. */
export interface Taker {
  /** Whether another task may be handed over now. */
  hasCredit(): boolean
  take(task: QueuedTask, deliveries: number): void
}

export interface TaskQueueOptions {
  readonly clock: Clock
  readonly fate: Fate
  readonly ackWaitMs: number
  readonly dedupeWindowMs: number
}

export class TaskQueue {
  readonly #options: TaskQueueOptions
  readonly #ready: QueuedTask[] = []
  /** When an id was last accepted: the dedupe window. */
  readonly #accepted = new Map<string, number>()
  readonly #takers: Taker[] = []

  constructor(options: TaskQueueOptions) {
    this.#options = options
  }

  /** False: a task of this id was published within the dedupe window, and it is not meant to be done again. */
  add(id: string, bytes: Uint8Array, again: boolean): boolean {
    const { clock, dedupeWindowMs, fate } = this.#options
    for (const [old, at] of this.#accepted) {
      if (clock.now() - at <= dedupeWindowMs) break
      this.#accepted.delete(old)
    }
    if (this.#accepted.has(id) && !again) return false
    this.#accepted.set(id, clock.now())
    this.#later(fate.delayMs(), { id, bytes, deliveries: 0, done: false }, 'last')
    return true
  }

  join(taker: Taker): void {
    this.#takers.push(taker)
    this.dispatch()
  }

  leave(taker: Taker): void {
    const index = this.#takers.indexOf(taker)
    if (index >= 0) this.#takers.splice(index, 1)
  }

  finish(task: QueuedTask): void {
    task.done = true
  }

  giveBack(task: QueuedTask, delayMs: number): void {
    if (!task.done) this.#later(delayMs, task, 'first')
  }

  /** Hands ready tasks to takers with credit, in turn. */
  dispatch(): void {
    while (this.#ready.length > 0) {
      const taker = this.#nextTaker()
      if (!taker) return
      const [task] = this.#ready.splice(this.#options.fate.picks(this.#ready.length), 1)
      if (task && !task.done) this.#deliver(task, taker)
    }
  }

  #deliver(task: QueuedTask, taker: Taker): void {
    const { fate, ackWaitMs } = this.#options
    task.deliveries++
    const lucky = task.deliveries > MOST_MISFORTUNES
    if (!lucky && fate.drops()) {
      this.#later(ackWaitMs, task, 'first')
      return
    }
    taker.take(task, task.deliveries)
    if (!lucky && fate.duplicates()) this.#later(ackWaitMs, task, 'first')
  }

  #nextTaker(): Taker | undefined {
    const index = this.#takers.findIndex((taker) => taker.hasCredit())
    if (index < 0) return undefined
    const [taker] = this.#takers.splice(index, 1)
    this.#takers.push(taker!)
    return taker
  }

  #later(delayMs: number, task: QueuedTask, place: 'first' | 'last'): void {
    const put = () => {
      // A queue holds a task once, however often it comes back.
      if (task.done || this.#ready.includes(task)) return
      if (place === 'first') this.#ready.unshift(task)
      else this.#ready.push(task)
      this.dispatch()
    }
    if (delayMs > 0) this.#options.clock.setTimeout(put, delayMs)
    else put()
  }
}
