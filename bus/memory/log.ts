/** The append-only log of a run in memory: the first record of an id is the only one. */
import type { EventName } from '../messages.ts'

export interface LogEntry {
  readonly seq: number
  readonly event: EventName
  readonly id: string
  readonly bytes: Uint8Array
}

export class MemoryLog {
  readonly #entries: LogEntry[] = []
  readonly #byId = new Map<string, LogEntry>()
  readonly #listeners = new Set<(entry: LogEntry) => void>()

  /** False: the event has a record of this id. */
  append(event: EventName, id: string, bytes: Uint8Array): boolean {
    const key = `${event}.${id}`
    if (this.#byId.has(key)) return false
    const entry = { seq: this.#entries.length + 1, event, id, bytes }
    this.#entries.push(entry)
    this.#byId.set(key, entry)
    for (const listener of [...this.#listeners]) listener(entry)
    return true
  }

  find(event: EventName, id: string): LogEntry | null {
    return this.#byId.get(`${event}.${id}`) ?? null
  }

  /** Entries from sequence number `seq` on. */
  from(seq: number): LogEntry[] {
    return this.#entries.slice(Math.max(0, seq - 1))
  }

  /** Calls `listener` for every later entry; returns the end of that. */
  listen(listener: (entry: LogEntry) => void): () => void {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }
}
