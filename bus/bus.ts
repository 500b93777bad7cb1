/**
 * The bus as actors see it: typed, at least once, effective once. Two carriers implement it and pass one contract
 * test: NATS (bus/nats/) and an in-memory one with a simulated clock (bus/memory.ts).
 *
 * The rules that every user of a bus follows: publish the result, await its acknowledgement, then ack the task.
 * A result is published under an id that depends on the task alone, so that doing a task twice changes nothing.
 */
import type { Envelope, EventData, EventName, Head, LiveData, LiveKind, Task, TaskKind } from './messages.ts'

/** One delivery of a task. Exactly one of `ack`, `retry`, `fail` must be called. */
export interface Delivery<K extends TaskKind> {
  readonly kind: K
  readonly id: string
  readonly message: Envelope<Task<K>>
  /** It has several items. */
  readonly divisible: boolean
  /** 1 on the first delivery. */
  readonly deliveries: number
  /** The task is done and its result is in the log. */
  ack(): Promise<void>
  /** Give it back, after a delay in milliseconds. */
  retry(delayMs?: number): void
  /**
   * Give up: appends a `dead` event with the cause, then terminates the task. One of several items is divided instead:
   * each of them becomes a task of its own.
   */
  fail(cause: string): Promise<void>
}

/** One entry of the log. `seq` orders the whole log. */
export interface LogRecord<E extends EventName = EventName> {
  readonly seq: number
  readonly event: E
  readonly id: string
  readonly message: Envelope<EventData<E>>
}

export interface HeadEntry {
  readonly head: Head
  /** For compare-and-set. */
  readonly revision: number
}

export interface ValueEntry {
  readonly value: unknown
  /** For compare-and-set. */
  readonly revision: number
}

export interface PullOptions {
  /** Deliveries in flight at once: the credit of this puller. */
  readonly credit: number
  readonly signal: AbortSignal
}

export interface Bus {
  readonly run: string
  /** Put work on the queue; resolves when it is durable. The same kind and id again is absorbed. */
  publish<K extends TaskKind>(kind: K, id: string, task: Task<K>, parent?: Traced): Promise<void>
  /** Puts a task that was given up on the queue again, whenever it was published before. */
  retry(kind: TaskKind, id: string): Promise<void>
  /** Deliveries of one kind until the signal aborts; a delivery holds one credit until it is settled. */
  pull<K extends TaskKind>(kind: K, options: PullOptions): AsyncIterable<Delivery<K>>
  /** Append to the log; resolves when durable. The same event and id again is absorbed (`duplicate: true`). */
  append<E extends EventName>(
    event: E,
    id: string,
    data: EventData<E>,
    parent?: Traced,
  ): Promise<{ duplicate: boolean }>
  /** The effective (first) record of an id, or null. */
  find<E extends EventName>(event: E, id: string): Promise<LogRecord<E> | null>
  /** Waits for a record: returns at once if it is in the log. Rejects when the signal aborts. */
  await<E extends EventName>(event: E, id: string, signal: AbortSignal): Promise<LogRecord<E>>
  /** Records of some events in order of `seq`, duplicates removed. `follow` goes on with new ones until abort. */
  read<E extends EventName>(
    events: readonly E[],
    options: { follow: boolean; fromSeq?: number; signal: AbortSignal },
  ): AsyncIterable<{ [K in E]: LogRecord<K> }[E]>
  /** Lossy broadcast; never throws, never waits. */
  live<K extends LiveKind>(kind: K, data: LiveData<K>): void
  onLive<K extends LiveKind>(kind: K, handler: (from: string, message: Envelope<LiveData<K>>) => void): () => void
  getHead(): Promise<HeadEntry | null>
  /** Moves the head iff its revision is still `expected` (null = the head does not exist yet). False = lost the race. */
  moveHead(head: Head, expected: number | null): Promise<boolean>
  /** Current head at once, then every change; re-read on reconnect. */
  watchHead(signal: AbortSignal): AsyncIterable<HeadEntry>
  /**
   * Stores bytes by content; returns `sha256-…`. Putting the same bytes again is free. They are given away: nobody writes
   * into them afterwards.
   */
  putBlob(bytes: Uint8Array): Promise<string>
  /** Verified bytes; throws BlobError when missing or corrupt. */
  getBlob(name: string): Promise<Uint8Array>
  /** The same without a copy: everybody in this process gets these bytes, and nobody may write into them. */
  viewBlob(name: string): Promise<Uint8Array>
  deleteBlob(name: string): Promise<void>
  /** Small run-wide documents (`config`), last write wins. */
  putValue(key: string, value: unknown): Promise<void>
  /** undefined when there is none. */
  getValue(key: string): Promise<unknown>
  /** Current value at once if there is one, then every change; re-read on reconnect. */
  watchValue(key: string, signal: AbortSignal): AsyncIterable<ValueEntry>
  /** Writes iff the revision is still `expected` (null = there is no value yet). False = lost the race. */
  moveValue(key: string, value: unknown, expected: number | null): Promise<boolean>
  /** Finishes what is in flight and closes. */
  close(): Promise<void>
}

/** Anything whose trace a new message continues. */
export interface Traced {
  readonly traceparent: string
}

export class BlobError extends Error {
  override name = 'BlobError'
}

/** A blob that is not there, as those of old versions are not. */
export class MissingBlobError extends BlobError {
  override name = 'MissingBlobError'
}
