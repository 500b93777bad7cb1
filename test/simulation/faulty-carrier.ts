/**
 * A carrier in bad weather, used by a process that may hang or die around each of its operations. It keeps the contract
 * of a carrier as the one on NATS does: an operation without an answer is repeated, and a compare-and-set whose answer
 * is lost is decided by reading the value.
 */
import type { Carrier, RawDelivery, RawRecord, RawValue, ReadOptions } from '../../bus/carrier.ts'
import { MAX_DELIVERIES } from '../../bus/limits.ts'
import type { EventName, LiveKind, TaskKind } from '../../bus/messages.ts'
import type { MemoryCarrier } from '../../bus/memory/memory-carrier.ts'
import type { SimProcess } from './process.ts'
import { OutOfReachError, type Weather } from './weather.ts'

/** From this delivery of a task on nothing befalls who holds it. */
const SPARED_FROM = MAX_DELIVERIES - 2

export interface FaultyOptions {
  readonly process: SimProcess
  readonly weather: Weather
  readonly ackWaitMs: number
  /** 32 hex digits. */
  readonly hex: () => string
  /** Told of what the simulation counts. */
  readonly onSight: (what: 'redelivery' | 'duplicate' | 'fenced') => void
}

export class FaultyCarrier implements Carrier {
  readonly run: string
  readonly by: string
  readonly #inner: MemoryCarrier
  readonly #options: FaultyOptions

  constructor(inner: MemoryCarrier, options: FaultyOptions) {
    this.run = inner.run
    this.by = inner.by
    this.#inner = inner
    this.#options = options
  }

  now(): number {
    return this.#options.process.now()
  }

  hex(): string {
    return this.#options.hex()
  }

  /** `again`: what a client does that has got no answer. */
  async #do<T>(operation: string, effect: () => Promise<T>, again: () => Promise<T> = effect): Promise<T> {
    const { process, weather } = this.#options
    await process.reaches(operation, 'before')
    try {
      await weather.travel()
      if (this.#refuses()) throw new OutOfReachError(`${operation} found no server`)
      let result = await effect()
      if (weather.losesAnswer()) {
        await weather.silence()
        await process.awake()
        result = await again()
      }
      if (this.#refuses()) throw new OutOfReachError(`${operation} got no answer`)
      await process.reaches(operation, 'after')
      return result
    } catch (error) {
      // The bus of a dead process is closed; it does not live to see it.
      await process.awake()
      throw error
    }
  }

  #refuses(): boolean {
    return this.#options.process.spared === 0 && this.#options.weather.refuses()
  }

  /** What a subscription brings, late at times; one that breaks is begun again by its reader. */
  async *#stream<T>(operation: string, source: AsyncIterable<T>): AsyncGenerator<T> {
    const { process, weather } = this.#options
    await process.reaches(operation, 'before')
    if (this.#refuses()) throw new OutOfReachError(`${operation} found no server`)
    for await (const item of source) {
      await weather.notice()
      await process.awake()
      yield item
      if (weather.breaks()) throw new OutOfReachError(`${operation} was cut`)
    }
    await process.awake()
  }

  async publish(kind: TaskKind, id: string, bytes: Uint8Array, again = false): Promise<void> {
    const { process, weather } = this.#options
    await this.#do(`publish.${kind}`, () => this.#inner.publish(kind, id, bytes, again))
    if (!weather.doubles()) return
    const once = async () => {
      await weather.silence()
      if (process.state !== 'dead') await this.#inner.publish(kind, id, bytes, true)
    }
    // A process that dies or leaves meanwhile says nothing more.
    once().catch(() => {})
  }

  async *pull(kind: TaskKind, credit: number, signal: AbortSignal): AsyncGenerator<RawDelivery> {
    const { process, weather } = this.#options
    for await (const raw of this.#inner.pull(kind, credit, signal)) {
      await process.awake()
      if (raw.deliveries > 1) this.#options.onSight('redelivery')
      yield this.#delivery(kind, raw)
      if (process.spared === 0 && weather.breaks()) throw new OutOfReachError(`the ${kind} tasks were cut`)
    }
    await process.awake()
  }

  #delivery(kind: TaskKind, raw: RawDelivery): RawDelivery {
    const { process } = this.#options
    const spare = raw.deliveries >= SPARED_FROM
    if (spare) process.spared++
    const over = () => {
      if (spare) process.spared--
    }
    return {
      id: raw.id,
      subject: raw.subject,
      bytes: raw.bytes,
      deliveries: raw.deliveries,
      done: async () => {
        const nothing = () => Promise.resolve()
        await this.#do(`done.${kind}`, () => this.#settle(raw, spare), nothing)
        over()
      },
      giveBack: (delayMs) => {
        if (process.state === 'dead') return
        raw.giveBack(this.#losesAck(spare) ? Math.max(delayMs, this.#options.ackWaitMs) : delayMs)
        over()
      },
    }
  }

  #settle(raw: RawDelivery, spare: boolean): Promise<void> {
    if (!this.#losesAck(spare)) return raw.done()
    raw.giveBack(this.#options.ackWaitMs)
    return Promise.resolve()
  }

  #losesAck(spare: boolean): boolean {
    return !spare && this.#options.weather.losesAck()
  }

  async append(event: EventName, id: string, bytes: Uint8Array): Promise<{ duplicate: boolean }> {
    const answer = await this.#do(`append.${event}`, () => this.#inner.append(event, id, bytes))
    if (answer.duplicate) this.#options.onSight('duplicate')
    return answer
  }

  find(event: EventName, id: string): Promise<RawRecord | null> {
    return this.#do(`find.${event}`, () => this.#inner.find(event, id))
  }

  async await(event: EventName, id: string, signal: AbortSignal): Promise<RawRecord> {
    const { process, weather } = this.#options
    await process.reaches(`await.${event}`, 'before')
    try {
      const record = await this.#inner.await(event, id, signal)
      await weather.notice()
      await process.reaches(`await.${event}`, 'after')
      return record
    } catch (error) {
      await process.awake()
      throw error
    }
  }

  read(events: readonly EventName[], options: ReadOptions): AsyncIterable<RawRecord> {
    return this.#stream('read', this.#inner.read(events, options))
  }

  sendLive(kind: LiveKind, bytes: Uint8Array): void {
    if (this.#options.process.state === 'running') this.#inner.sendLive(kind, bytes)
  }

  onLive(kind: LiveKind, handler: (from: string, subject: string, bytes: Uint8Array) => void): () => void {
    return this.#inner.onLive(kind, handler)
  }

  getValue(key: string): Promise<RawValue | null> {
    return this.#do(`get.${key}`, () => this.#inner.getValue(key))
  }

  putValue(key: string, bytes: Uint8Array): Promise<void> {
    return this.#do(`put.${key}`, () => this.#inner.putValue(key, bytes))
  }

  async moveValue(key: string, bytes: Uint8Array, expected: number | null): Promise<boolean> {
    const move = () => this.#inner.moveValue(key, bytes, expected)
    const decide = async () => {
      const now = await this.#inner.getValue(key)
      if (now && Buffer.compare(now.bytes, bytes) === 0) return true
      return (now?.revision ?? null) === expected && move()
    }
    const moved = await this.#do(`move.${key}`, move, decide)
    if (!moved) this.#options.onSight('fenced')
    return moved
  }

  /** Who was late gets the newest value alone, at times the same twice, as after a lost connection. */
  async *watchValue(key: string, signal: AbortSignal): AsyncGenerator<RawValue> {
    const { process, weather } = this.#options
    await process.reaches(`watch.${key}`, 'before')
    let seen = 0
    for await (const value of this.#inner.watchValue(key, signal)) {
      if (value.revision <= seen) continue
      const late = weather.notice()
      await late
      await process.awake()
      const newest = late === null ? value : ((await this.#inner.getValue(key)) ?? value)
      seen = newest.revision
      yield newest
      if (late !== null) yield newest
      if (weather.breaks()) throw new OutOfReachError(`the watch of ${key} was cut`)
    }
    await process.awake()
  }

  putBlob(bytes: Uint8Array): Promise<string> {
    return this.#do('putBlob', () => this.#inner.putBlob(bytes))
  }

  getBlob(name: string): Promise<Uint8Array> {
    return this.#do('getBlob', () => this.#inner.getBlob(name))
  }

  deleteBlob(name: string): Promise<void> {
    return this.#do('deleteBlob', () => this.#inner.deleteBlob(name))
  }

  async close(): Promise<void> {
    await this.#options.process.awake()
    await this.#inner.close()
  }
}
