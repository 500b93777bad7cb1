/** One actor's bus on NATS, at the level of bytes. */
import type { Carrier, RawDelivery, RawRecord, RawValue, ReadOptions } from '../carrier.ts'
import { Lifetime } from '../lifetime.ts'
import type { EventName, LiveKind, TaskKind } from '../messages.ts'
import { keyOf, subjects } from '../subjects.ts'
import { randomHex } from '../trace.ts'
import type { NatsBlobs } from './blobs.ts'
import { followRecords } from './follow-log.ts'
import { HeldTasks } from './held-tasks.ts'
import type { LogTail } from './log-tail.ts'
import { appendRecord, findRecord, readRecords } from './log.ts'
import type { Shared } from './shared.ts'
import { publishTask, TaskPuller } from './tasks.ts'
import { getValue, moveValue, putValue, watchValue } from './values.ts'

export class NatsCarrier implements Carrier {
  readonly run: string
  readonly by: string
  readonly #shared: Shared
  readonly #tail: LogTail
  readonly #blobs: NatsBlobs
  readonly #life: Lifetime
  readonly #held: HeldTasks
  readonly #pending = new Set<Promise<unknown>>()

  constructor(shared: Shared, tail: LogTail, blobs: NatsBlobs, by: string) {
    this.run = shared.run
    this.by = by
    this.#shared = shared
    this.#tail = tail
    this.#blobs = blobs
    this.#life = new Lifetime(by)
    this.#held = new HeldTasks(this.#life, shared.ackWaitMs)
  }

  now(): number {
    return Date.now()
  }

  hex(): string {
    return randomHex()
  }

  publish(kind: TaskKind, id: string, bytes: Uint8Array, again = false): Promise<void> {
    return this.#write(() => publishTask(this.#shared, this.#life, kind, id, bytes, again))
  }

  pull(kind: TaskKind, credit: number, signal: AbortSignal): AsyncIterable<RawDelivery> {
    this.#life.assertOpen()
    return new TaskPuller(this.#shared, this.#life, this.#held, kind, credit).run(signal)
  }

  append(event: EventName, id: string, bytes: Uint8Array): Promise<{ duplicate: boolean }> {
    return this.#write(() => appendRecord(this.#shared, this.#life, event, id, bytes))
  }

  find(event: EventName, id: string): Promise<RawRecord | null> {
    return findRecord(this.#shared, this.#life, event, id)
  }

  async await(event: EventName, id: string, signal: AbortSignal): Promise<RawRecord> {
    this.#life.assertOpen()
    signal.throwIfAborted()
    let stop = () => {}
    let forget = () => {}
    try {
      return await new Promise<RawRecord>((resolve, reject) => {
        forget = this.#life.onEnd(signal, reject)
        this.#tail
          .wait(event, id, resolve)
          .then(async (waiting) => {
            stop = waiting.stop
            const record = waiting.lookUp ? await this.find(event, id) : null
            if (record !== null) resolve(record)
          })
          .catch(reject)
      })
    } finally {
      forget()
      stop()
    }
  }

  read(events: readonly EventName[], options: ReadOptions): AsyncIterable<RawRecord> {
    const { follow, ...rest } = options
    if (follow && this.#shared.readLogOnce) return followRecords(this.#shared, this.#life, this.#tail, events, rest)
    return readRecords(this.#shared, this.#life, events, options)
  }

  sendLive(kind: LiveKind, bytes: Uint8Array): void {
    if (this.#life.closed || this.#shared.connection.isClosed()) return
    this.#shared.connection.publish(subjects.live(this.run, this.by, kind), bytes)
  }

  onLive(kind: LiveKind, handler: (from: string, subject: string, bytes: Uint8Array) => void): () => void {
    this.#life.assertOpen()
    const subscription = this.#shared.connection.subscribe(subjects.livesOf(this.run, kind), {
      callback: (error, message) => {
        if (!error) handler(message.subject.split('.').slice(-3, -1).join('.'), message.subject, message.data)
      },
    })
    const forget = this.#life.onEnd(null, () => subscription.unsubscribe())
    return () => {
      forget()
      subscription.unsubscribe()
    }
  }

  getValue(key: string): Promise<RawValue | null> {
    return getValue(this.#shared, this.#life, keyOf(key))
  }

  putValue(key: string, bytes: Uint8Array): Promise<void> {
    return this.#write(() => putValue(this.#shared, this.#life, keyOf(key), bytes))
  }

  moveValue(key: string, bytes: Uint8Array, expected: number | null): Promise<boolean> {
    return this.#write(() => moveValue(this.#shared, this.#life, keyOf(key), bytes, expected))
  }

  watchValue(key: string, signal: AbortSignal): AsyncIterable<RawValue> {
    return watchValue(this.#shared, this.#life, keyOf(key), signal)
  }

  putBlob(bytes: Uint8Array): Promise<string> {
    return this.#write(() => this.#blobs.put(bytes))
  }

  async getBlob(name: string): Promise<Uint8Array> {
    this.#life.assertOpen()
    return this.#blobs.get(name)
  }

  deleteBlob(name: string): Promise<void> {
    return this.#write(() => this.#blobs.delete(name))
  }

  async close(): Promise<void> {
    if (this.#life.closed) return
    await Promise.allSettled(this.#pending)
    this.#held.end()
    this.#life.end()
    // The answers of the tasks given back leave at the end of this turn.
    await this.#shared.turns.next()
    if (this.#shared.link.up) await this.#shared.connection.flush()
  }

  /** Writes under way are finished before the bus closes. */
  async #write<T>(work: () => Promise<T>): Promise<T> {
    this.#life.assertOpen()
    const promise = work()
    this.#pending.add(promise)
    try {
      return await promise
    } finally {
      this.#pending.delete(promise)
    }
  }
}
