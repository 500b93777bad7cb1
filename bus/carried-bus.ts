/** The typed bus on any carrier: validation at the edge, settling of deliveries, dead letters, alarms. */
import type { z } from 'zod'
import type { Bus, Delivery, HeadEntry, LogRecord, PullOptions, Traced, ValueEntry } from './bus.ts'
import type { Carrier, RawDelivery, RawRecord, RawValue, ReadOptions } from './carrier.ts'
import { decode, encode, type Sender } from './codec.ts'
import { decodeOnce } from './decoded-records.ts'
import { divide } from './divide.ts'
import { MessageError, SettledError } from './errors.ts'
import { MAX_DELIVERIES } from './limits.ts'
import {
  eventSchemas,
  liveSchemas,
  taskSchemas,
  valueSchemas,
  type Envelope,
  type EventData,
  type EventName,
  type Head,
  type LiveData,
  type LiveKind,
  type Task,
  type TaskKind,
} from './messages.ts'
import { deadId, HEAD_KEY, retriedId, subjects } from './subjects.ts'

type AnyRecord<E extends EventName> = { [K in E]: LogRecord<K> }[E]

// TypeScript does not relate the schema at a generic key to the type inferred from it, hence one cast per table.
const taskSchema = <K extends TaskKind>(kind: K) => taskSchemas[kind] as unknown as z.ZodType<Task<K>>
const eventSchema = <E extends EventName>(event: E) => eventSchemas[event] as unknown as z.ZodType<EventData<E>>
const liveSchema = <K extends LiveKind>(kind: K) => liveSchemas[kind] as unknown as z.ZodType<LiveData<K>>

export class CarriedBus implements Bus {
  readonly run: string
  readonly #carrier: Carrier

  constructor(carrier: Carrier) {
    this.run = carrier.run
    this.#carrier = carrier
  }

  async publish<K extends TaskKind>(kind: K, id: string, task: Task<K>, parent?: Traced): Promise<void> {
    const subject = subjects.task(this.run, kind, id)
    const bytes = await encode(kind, taskSchema(kind), task, subject, this.#sender(parent), this.#carrier)
    await this.#carrier.publish(kind, id, bytes)
  }

  async *pull<K extends TaskKind>(kind: K, { credit, signal }: PullOptions): AsyncGenerator<Delivery<K>> {
    for await (const raw of this.#carrier.pull(kind, credit, signal)) {
      const delivery = await this.#deliver(kind, raw)
      if (delivery) yield delivery
    }
  }

  /** Null when there is nothing to do for an actor: the task is not valid, or has been delivered too often. */
  async #deliver<K extends TaskKind>(kind: K, raw: RawDelivery): Promise<Delivery<K> | null> {
    let message: Envelope<Task<K>>
    try {
      message = await decode(kind, taskSchema(kind), raw.bytes, raw.subject, this.#carrier)
    } catch (error) {
      // A blob may be back at the next delivery; what does not parse never will.
      if (error instanceof MessageError) await this.#end(kind, raw, null, error.message)
      else await this.#retry(kind, raw, null, 1000, String(error))
      return null
    }
    if (raw.deliveries <= MAX_DELIVERIES) return this.#delivery(kind, raw, message)
    await this.#end(kind, raw, message, `no acknowledgement after ${MAX_DELIVERIES} deliveries`)
    return null
  }

  #delivery<K extends TaskKind>(kind: K, raw: RawDelivery, message: Envelope<Task<K>>): Delivery<K> {
    let settled = false
    const settle = () => {
      if (settled) throw new SettledError(kind, raw.id)
      settled = true
    }
    return {
      kind,
      id: raw.id,
      message,
      divisible: divide(kind, message.data).length > 0,
      deliveries: raw.deliveries,
      ack: async () => {
        settle()
        await raw.done()
      },
      retry: (delayMs = 0) => {
        settle()
        // If this fails, the task is unanswered and comes back by itself.
        this.#retry(kind, raw, message, delayMs, 'given back').catch(() => {})
      },
      fail: async (cause) => {
        settle()
        await this.#end(kind, raw, message, cause)
      },
    }
  }

  async #retry<K extends TaskKind>(
    kind: K,
    raw: RawDelivery,
    message: Envelope<Task<K>> | null,
    delayMs: number,
    cause: string,
  ): Promise<void> {
    if (raw.deliveries < MAX_DELIVERIES) raw.giveBack(delayMs)
    else await this.#end(kind, raw, message, `${cause} at the last of ${MAX_DELIVERIES} deliveries`)
  }

  /**
   * Divides a task of several items, gives up another; `message` is null for one that could not be read. What takes its
   * place goes first: a crash in between leaves a task that ends again, under the same ids. One whose end cannot be told
   * goes back, lest it is held for ever.
   */
  async #end<K extends TaskKind>(
    kind: K,
    raw: RawDelivery,
    message: Envelope<Task<K>> | null,
    cause: string,
  ): Promise<void> {
    const items = message ? divide(kind, message.data) : []
    try {
      if (items.length === 0) await this.#recordDeath(kind, raw, cause)
      else await Promise.all(items.map(({ id, task }) => this.publish(kind, id, task, message!)))
    } catch (error) {
      raw.giveBack(1000)
      throw error
    }
    await raw.done()
  }

  async #recordDeath(kind: TaskKind, raw: RawDelivery, cause: string): Promise<void> {
    const deliveries = Math.min(raw.deliveries, MAX_DELIVERIES)
    const task = await this.#carrier.putBlob(raw.bytes)
    const attempt = await this.#attempt(kind, raw.id)
    const id = attempt === 0 ? deadId(kind, raw.id) : retriedId(kind, raw.id, attempt)
    await this.append('dead', id, { kind, id: raw.id, cause, deliveries, task })
  }

  /** How often a task that had been given up was put on the queue again. */
  async #attempt(kind: TaskKind, id: string): Promise<number> {
    for (let attempt = 0; ; attempt++) {
      if (!(await this.#carrier.find('retried', retriedId(kind, id, attempt + 1)))) return attempt
    }
  }

  /** The event goes first: who waits for the task must not meet the old end of it. */
  async retry(kind: TaskKind, id: string): Promise<void> {
    const last = await this.#attempt(kind, id)
    const dead = await this.find('dead', last === 0 ? deadId(kind, id) : retriedId(kind, id, last))
    const task = dead?.message.data.task
    if (task === undefined) throw new MessageError(subjects.task(this.run, kind, id), 'the task was not given up')
    const bytes = await this.getBlob(task)
    const attempt = last + 1
    await this.append('retried', retriedId(kind, id, attempt), { kind, id, attempt }, dead?.message)
    await this.#carrier.publish(kind, id, bytes, true)
  }

  async append<E extends EventName>(
    event: E,
    id: string,
    data: EventData<E>,
    parent?: Traced,
  ): Promise<{ duplicate: boolean }> {
    const subject = subjects.log(this.run, event, id)
    const bytes = await encode(event, eventSchema(event), data, subject, this.#sender(parent), this.#carrier)
    return this.#carrier.append(event, id, bytes)
  }

  async find<E extends EventName>(event: E, id: string): Promise<LogRecord<E> | null> {
    const raw = await this.#carrier.find(event, id)
    return raw && this.#record(event, raw)
  }

  async await<E extends EventName>(event: E, id: string, signal: AbortSignal): Promise<LogRecord<E>> {
    return this.#record(event, await this.#carrier.await(event, id, signal))
  }

  /** A record that is not a message is passed over, and an `alarm` event says so. */
  async *read<E extends EventName>(events: readonly E[], options: ReadOptions): AsyncGenerator<AnyRecord<E>> {
    for await (const raw of this.#carrier.read(events, options)) {
      try {
        yield (await this.#record(raw.event as E, raw)) as AnyRecord<E>
      } catch (error) {
        await this.#alarm(`record-${raw.seq}`, error)
      }
    }
  }

  async #record<E extends EventName>(event: E, raw: RawRecord): Promise<LogRecord<E>> {
    const message = await decodeOnce(raw.bytes, () =>
      decode(event, eventSchema(event), raw.bytes, raw.subject, this.#carrier),
    )
    return { seq: raw.seq, event, id: raw.id, message }
  }

  live<K extends LiveKind>(kind: K, data: LiveData<K>): void {
    const subject = subjects.live(this.run, this.#carrier.by, kind)
    encode(kind, liveSchema(kind), data, subject, this.#sender(), this.#carrier)
      .then((bytes) => this.#carrier.sendLive(kind, bytes))
      .catch((error: unknown) => this.#liveAlarm(subject, error))
  }

  onLive<K extends LiveKind>(kind: K, handler: (from: string, message: Envelope<LiveData<K>>) => void): () => void {
    return this.#carrier.onLive(kind, (from, subject, bytes) => {
      decode(kind, liveSchema(kind), bytes, subject, this.#carrier).then(
        (message) => handler(from, message),
        (error: unknown) => this.#liveAlarm(subject, error),
      )
    })
  }

  async getHead(): Promise<HeadEntry | null> {
    const raw = await this.#carrier.getValue(HEAD_KEY)
    return raw && this.#headEntry(raw)
  }

  async moveHead(head: Head, expected: number | null): Promise<boolean> {
    const bytes = await encode('head', valueSchemas.head, head, HEAD_KEY, this.#sender(), this.#carrier)
    return this.#carrier.moveValue(HEAD_KEY, bytes, expected)
  }

  async *watchHead(signal: AbortSignal): AsyncGenerator<HeadEntry> {
    for await (const raw of this.#carrier.watchValue(HEAD_KEY, signal)) yield await this.#headEntry(raw)
  }

  async #headEntry(raw: RawValue): Promise<HeadEntry> {
    const message = await decode('head', valueSchemas.head, raw.bytes, HEAD_KEY, this.#carrier)
    return { head: message.data, revision: raw.revision }
  }

  putBlob(bytes: Uint8Array): Promise<string> {
    return this.#carrier.putBlob(bytes)
  }

  async getBlob(name: string): Promise<Uint8Array> {
    return (await this.#carrier.getBlob(name)).slice()
  }

  viewBlob(name: string): Promise<Uint8Array> {
    return this.#carrier.getBlob(name)
  }

  deleteBlob(name: string): Promise<void> {
    return this.#carrier.deleteBlob(name)
  }

  async putValue(key: string, value: unknown): Promise<void> {
    await this.#carrier.putValue(key, await this.#encodeValue(key, value))
  }

  async moveValue(key: string, value: unknown, expected: number | null): Promise<boolean> {
    return this.#carrier.moveValue(key, await this.#encodeValue(key, value), expected)
  }

  #encodeValue(key: string, value: unknown): Promise<Uint8Array> {
    if (key === HEAD_KEY) throw new MessageError(key, 'the head moves by compare-and-set only: use moveHead')
    const { document } = valueSchemas
    return encode('document', document, document.parse(value), key, this.#sender(), this.#carrier)
  }

  async *watchValue(key: string, signal: AbortSignal): AsyncGenerator<ValueEntry> {
    for await (const { bytes, revision } of this.#carrier.watchValue(key, signal)) {
      const message = await decode('document', valueSchemas.document, bytes, key, this.#carrier)
      yield { value: message.data, revision }
    }
  }

  async getValue(key: string): Promise<unknown> {
    const raw = await this.#carrier.getValue(key)
    if (!raw) return undefined
    return (await decode('document', valueSchemas.document, raw.bytes, key, this.#carrier)).data
  }

  close(): Promise<void> {
    return this.#carrier.close()
  }

  #sender(parent?: Traced): Sender {
    return { by: this.#carrier.by, now: this.#carrier.now(), hex: () => this.#carrier.hex(), parent }
  }

  /** One alarm per id, however often the message is read. */
  async #alarm(id: string, error: unknown): Promise<void> {
    const message = error instanceof Error ? error.message : String(error)
    await this.append('alarm', id, { step: 0, name: 'bad-message', message, value: 0 })
  }

  /** Live messages are lossy, so is the alarm about them: it must never throw. */
  #liveAlarm(subject: string, error: unknown): void {
    if (!(error instanceof MessageError)) return
    this.#alarm(`live-${subject.split('.').slice(-3).join('-')}`, error).catch(() => {})
  }
}
