/**
 * Leases: one holder of a name at a time, in the key-value store. A lease only elects; what must not happen twice is
 * fenced elsewhere (the head by compare-and-set, results by their ids). Who watches a lease believes in its holder as
 * long as the value keeps changing by the watcher's own clock, so that clocks of machines need not agree.
 */
import { z } from 'zod'
import type { Bus } from '../bus/bus.ts'
import type { Clock } from '../bus/clock.ts'

export const holderSchema = z.object({
  /** `role.instance` on the bus. */
  instance: z.string().min(1),
  /** What it is, for people. */
  name: z.string().min(1),
  version: z.string().min(1),
})
export type Holder = z.infer<typeof holderSchema>

const leaseSchema = z.object({ holder: holderSchema.nullable(), beat: z.number().int().min(0) })

export interface LeaseOptions {
  readonly bus: Bus
  readonly clock: Clock
  /** Key of the value: ids joined by dots. */
  readonly key: string
}

/** A holder writes this often. */
export const RENEW_MS = 2_000
/** A holder that has not written for this long holds nothing any more. */
export const EXPIRE_MS = 8_000

interface Sight {
  readonly holder: Holder | null
  readonly revision: number | null
}

/** Calls `see` with the holder now, and whenever it changes or is silent for too long, until the signal aborts. */
export async function watchLease(
  { bus, clock, key }: LeaseOptions,
  signal: AbortSignal,
  see: (sight: Sight) => void,
): Promise<void> {
  let timer: unknown = null
  const value = await bus.getValue(key)
  if (value === undefined) see({ holder: null, revision: null })
  try {
    for await (const entry of bus.watchValue(key, signal)) {
      clock.clearTimeout(timer)
      const { holder } = leaseSchema.parse(entry.value)
      const { revision } = entry
      see({ holder, revision })
      if (holder) timer = clock.setTimeout(() => see({ holder: null, revision }), EXPIRE_MS)
    }
  } finally {
    clock.clearTimeout(timer)
  }
}

/** Runs `work` whenever nobody holds the lease; its signal aborts when somebody takes it. Ends with the signal. */
export function whileFree(options: LeaseOptions, signal: AbortSignal, work: Work): Promise<void> {
  return during(work, (turn) =>
    watchLease(options, signal, ({ holder }) => (holder === null ? turn.begin() : turn.end())),
  )
}

export interface HoldOptions extends LeaseOptions {
  readonly me: Holder
  /** Takes the lease from whoever holds it, once; after that, as without it, only when it is free. */
  readonly preempt: boolean
}

/** Runs `work` while this holder has the lease; its signal aborts when it is lost. Gives it back at the end. */
export function whileHeld(options: HoldOptions, signal: AbortSignal, work: Work): Promise<void> {
  const { bus, clock, key, me } = options
  let preempt = options.preempt
  let beat = 0
  let seen: Sight | null = null
  let timer: unknown = null
  let watching = true
  const write = (holder: Holder | null) => bus.moveValue(key, { holder, beat: ++beat }, seen?.revision ?? null)
  return during(work, async (turn) => {
    const renew = (): void => {
      const sight = seen
      write(me).catch(() => {
        // Unanswered: what is seen next decides. Where nothing changes, nothing is seen.
        if (watching && seen === sight) timer = clock.setTimeout(renew, RENEW_MS)
      })
    }
    const see = (sight: Sight): void => {
      seen = sight
      clock.clearTimeout(timer)
      const mine = sight.holder?.instance === me.instance
      if (mine) turn.begin()
      else turn.end()
      // Not before: the first write may lose against a holder that renews at this moment.
      if (mine) preempt = false
      if (mine) timer = clock.setTimeout(renew, RENEW_MS)
      else if (sight.holder === null || preempt) renew()
    }
    try {
      await watchLease(options, signal, see)
    } finally {
      watching = false
      clock.clearTimeout(timer)
      const mine = turn.begun
      await turn.over()
      if (mine) await write(null).catch(() => false)
    }
  })
}

type Work = (held: AbortSignal) => Promise<void>

/** One piece of work at a time, begun and ended as `drive` says; ends when `drive` does. */
class Turn {
  #controller: AbortController | null = null
  #work: Promise<void> = Promise.resolve()

  constructor(private readonly work: Work) {}

  get begun(): boolean {
    return this.#controller !== null
  }

  begin(): void {
    if (this.#controller) return
    const controller = new AbortController()
    this.#controller = controller
    this.#work = this.#work.then(() => (controller.signal.aborted ? undefined : this.work(controller.signal)))
    // Thrown by `over`.
    this.#work.catch(() => {})
  }

  end(): void {
    this.#controller?.abort()
    this.#controller = null
  }

  /** What `work` has thrown, if anything. */
  async over(): Promise<void> {
    this.end()
    await this.#work
  }
}

async function during(work: Work, drive: (turn: Turn) => Promise<void>): Promise<void> {
  const turn = new Turn(work)
  try {
    await drive(turn)
  } finally {
    await turn.over()
  }
}
