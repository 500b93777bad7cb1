/**
 * What a carrier of the bus does: moves and keeps bytes. Types, validation, dead letters and the rules of settling are
 * the same on every carrier and live in carried-bus.ts.
 */
import type { BlobStore } from './codec.ts'
import type { EventName, LiveKind, TaskKind } from './messages.ts'

/** One delivery of a task as bytes. It holds one credit until `done` or `giveBack`. */
export interface RawDelivery {
  readonly id: string
  readonly subject: string
  readonly bytes: Uint8Array
  /** 1 on the first delivery; over `MAX_DELIVERIES` when the task must be given up instead of done. */
  readonly deliveries: number
  /** Removes the task. */
  done(): Promise<void>
  /** Puts it back. */
  giveBack(delayMs: number): void
}

export interface RawRecord {
  readonly seq: number
  readonly event: EventName
  readonly id: string
  readonly subject: string
  readonly bytes: Uint8Array
}

/** `revision` is for compare-and-set. */
export interface RawValue {
  readonly bytes: Uint8Array
  readonly revision: number
}

export interface ReadOptions {
  readonly follow: boolean
  readonly fromSeq?: number
  readonly signal: AbortSignal
}

/** Every method rejects with BusClosedError after `close`; iterations end then, and when their signal aborts. */
export interface Carrier extends BlobStore {
  readonly run: string
  /** `role.instance` of the owner. */
  readonly by: string
  /** Milliseconds since the epoch. */
  now(): number
  /** 32 random hex digits for a trace. */
  hex(): string
  /** Once per id; `again`: also when a task of this id was published, and is done, a short time ago. */
  publish(kind: TaskKind, id: string, bytes: Uint8Array, again?: boolean): Promise<void>
  pull(kind: TaskKind, credit: number, signal: AbortSignal): AsyncIterable<RawDelivery>
  append(event: EventName, id: string, bytes: Uint8Array): Promise<{ duplicate: boolean }>
  find(event: EventName, id: string): Promise<RawRecord | null>
  await(event: EventName, id: string, signal: AbortSignal): Promise<RawRecord>
  read(events: readonly EventName[], options: ReadOptions): AsyncIterable<RawRecord>
  sendLive(kind: LiveKind, bytes: Uint8Array): void
  onLive(kind: LiveKind, handler: (from: string, subject: string, bytes: Uint8Array) => void): () => void
  getValue(key: string): Promise<RawValue | null>
  putValue(key: string, bytes: Uint8Array): Promise<void>
  /** Writes iff the revision is still `expected` (null = no value yet). */
  moveValue(key: string, bytes: Uint8Array, expected: number | null): Promise<boolean>
  /** The value at once, then every later one that is newer. */
  watchValue(key: string, signal: AbortSignal): AsyncIterable<RawValue>
  deleteBlob(name: string): Promise<void>
  close(): Promise<void>
}
