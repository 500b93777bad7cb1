/** New records of the log, told to whoever waits for one of them or listens to all: one reader for a whole process. */
import { setTimeout as sleep } from 'node:timers/promises'
import type { RawRecord } from '../carrier.ts'
import type { Lifetime } from '../lifetime.ts'
import { eventSchemas, type EventName } from '../messages.ts'
import { stores, subjects } from '../subjects.ts'
import { lastSequence, readRecords } from './log.ts'
import { patiently } from './patience.ts'
import type { Shared } from './shared.ts'

const EVENTS = Object.keys(eventSchemas) as EventName[]
/** Subjects remembered; in a longer log every waiter looks its record up first. */
const MEMORY = 500_000

export interface Waiting {
  /** The record may be in the log already: look it up. False: it is not, and its arrival will be told. */
  readonly lookUp: boolean
  stop(): void
}

export class LogTail {
  readonly #shared: Shared
  readonly #life: Lifetime
  readonly #waiters = new Map<string, Set<(record: RawRecord) => void>>()
  /** Every subject of the log up to where the reader is; null when there are too many. */
  #known: Set<string> | null = new Set()
  readonly #listeners = new Set<(record: RawRecord) => void>()
  /** The last record that was told, or that was there before. */
  #at = 0
  #started: Promise<void> | null = null

  /** `life` is that of the connection, not of one bus. */
  constructor(shared: Shared, life: Lifetime) {
    this.#shared = shared
    this.#life = life
  }

  /** Calls `found` when a record of this id is appended; once this resolves, nothing is missed. */
  async wait(event: EventName, id: string, found: (record: RawRecord) => void): Promise<Waiting> {
    const subject = subjects.log(this.#shared.run, event, id)
    await this.#running()
    const waiters = this.#waiters.get(subject) ?? new Set()
    this.#waiters.set(subject, waiters.add(found))
    return {
      lookUp: this.#known?.has(subject) ?? true,
      stop: () => {
        waiters.delete(found)
        if (waiters.size === 0 && this.#waiters.get(subject) === waiters) this.#waiters.delete(subject)
      },
    }
  }

  /** Calls `hear` with every record after `after`, in order and each once. */
  async listen(hear: (record: RawRecord) => void): Promise<{ readonly after: number; stop(): void }> {
    await this.#running()
    this.#listeners.add(hear)
    return { after: this.#at, stop: () => void this.#listeners.delete(hear) }
  }

  /** A start that fails is tried again by who comes next. */
  #running(): Promise<void> {
    this.#started ??= this.#start().catch((error: unknown) => {
      this.#started = null
      throw error
    })
    return this.#started
  }

  async #start(): Promise<void> {
    const stream = stores.log(this.#shared.run)
    const last = await lastSequence(this.#shared, this.#life)
    if (last > MEMORY) this.#known = null
    else if (last > 0) {
      const filter = { subjects_filter: subjects.logs(this.#shared.run) }
      const { state } = await patiently(this.#shared, this.#life, 'listing the log', () =>
        this.#shared.jsm.streams.info(stream, filter),
      )
      this.#known = new Set(Object.keys(state.subjects ?? {}))
    }
    this.#at = last
    void this.#follow(last + 1)
  }

  /** Reads until the connection closes. While the server is away for longer than the patience, waiters just wait. */
  async #follow(fromSeq: number): Promise<void> {
    const signal = new AbortController().signal
    while (!this.#life.closed) {
      try {
        for await (const record of readRecords(this.#shared, this.#life, EVENTS, { follow: true, fromSeq, signal })) {
          fromSeq = record.seq + 1
          this.#tell(record)
        }
      } catch {
        await sleep(250)
      }
    }
  }

  #tell(record: RawRecord): void {
    this.#at = record.seq
    for (const hear of [...this.#listeners]) hear(record)
    this.#known?.add(record.subject)
    if (this.#known && this.#known.size > MEMORY) this.#known = null
    const waiters = this.#waiters.get(record.subject)
    if (!waiters) return
    this.#waiters.delete(record.subject)
    for (const found of waiters) found(record)
  }
}
