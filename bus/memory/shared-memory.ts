/** What the buses of one in-memory run share: the place of the server. */
import { systemClock, type Clock } from '../clock.ts'
import { ACK_WAIT_MS, DEDUPE_WINDOW_MS } from '../limits.ts'
import type { LiveKind, TaskKind } from '../messages.ts'
import { MemoryBlobs } from './blobs.ts'
import { fate, type Fate, type Faults } from './faults.ts'
import { MemoryLog } from './log.ts'
import { TaskQueue } from './task-queue.ts'

export interface MemoryNetOptions {
  readonly clock?: Clock
  readonly faults?: Faults
  readonly ackWaitMs?: number
  readonly dedupeWindowMs?: number
}

/** A value of the key-value store; `revision` counts all writes. */
export interface StoredValue {
  readonly bytes: Uint8Array
  readonly revision: number
}

export class SharedMemory {
  readonly clock: Clock
  readonly ackWaitMs: number
  readonly log = new MemoryLog()
  readonly blobs = new MemoryBlobs()
  readonly liveListeners = new Set<(kind: LiveKind, from: string, bytes: Uint8Array) => void>()
  readonly #values = new Map<string, StoredValue>()
  readonly #watchers = new Set<(key: string, value: StoredValue) => void>()
  readonly #queues = new Map<TaskKind, TaskQueue>()
  readonly #dedupeWindowMs: number
  readonly #fate: Fate
  #revision = 0

  constructor(
    readonly run: string,
    options: MemoryNetOptions,
  ) {
    this.clock = options.clock ?? systemClock
    this.ackWaitMs = options.ackWaitMs ?? ACK_WAIT_MS
    this.#dedupeWindowMs = options.dedupeWindowMs ?? DEDUPE_WINDOW_MS
    this.#fate = fate(options.faults)
  }

  queue(kind: TaskKind): TaskQueue {
    const known = this.#queues.get(kind)
    if (known) return known
    const queue = new TaskQueue({
      clock: this.clock,
      fate: this.#fate,
      ackWaitMs: this.ackWaitMs,
      dedupeWindowMs: this.#dedupeWindowMs,
    })
    this.#queues.set(kind, queue)
    return queue
  }

  /** Hands waiting tasks to takers that have credit again. */
  dispatch(): void {
    for (const queue of this.#queues.values()) queue.dispatch()
  }

  value(key: string): StoredValue | undefined {
    return this.#values.get(key)
  }

  setValue(key: string, bytes: Uint8Array): void {
    const value = { bytes, revision: ++this.#revision }
    this.#values.set(key, value)
    for (const watcher of [...this.#watchers]) watcher(key, value)
  }

  /** Calls `watcher` on every later write; returns the end of that. */
  watchValues(watcher: (key: string, value: StoredValue) => void): () => void {
    this.#watchers.add(watcher)
    return () => this.#watchers.delete(watcher)
  }
}
