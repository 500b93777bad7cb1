/** One actor's connection to a `SharedMemory`. */
import type { Carrier, RawDelivery, RawRecord, RawValue, ReadOptions } from '../carrier.ts'
import { Channel } from '../channel.ts'
import { Lifetime } from '../lifetime.ts'
import type { EventName, LiveKind, TaskKind } from '../messages.ts'
import { keyOf, subjects } from '../subjects.ts'
import { randomHex } from '../trace.ts'
import type { LogEntry } from './log.ts'
import type { SharedMemory } from './shared-memory.ts'
import type { QueuedTask, Taker, TaskQueue } from './task-queue.ts'

export class MemoryCarrier implements Carrier {
  readonly run: string
  readonly by: string
  readonly #net: SharedMemory
  readonly #life: Lifetime
  readonly #held = new Map<QueuedTask, TaskQueue>()
  /** Nothing was heard from its process for the acknowledgement time. */
  #silent = false

  constructor(net: SharedMemory, by: string) {
    this.run = net.run
    this.by = by
    this.#net = net
    this.#life = new Lifetime(by)
  }

  now(): number {
    return this.#net.clock.now()
  }

  hex(): string {
    return randomHex()
  }

  async publish(kind: TaskKind, id: string, bytes: Uint8Array, again = false): Promise<void> {
    await this.#turn()
    this.#net.queue(kind).add(id, bytes, again)
  }

  async *pull(kind: TaskKind, credit: number, signal: AbortSignal): AsyncGenerator<RawDelivery> {
    this.#life.assertOpen()
    const queue = this.#net.queue(kind)
    const channel = new Channel<RawDelivery>()
    let inFlight = 0
    const taker: Taker = {
      hasCredit: () => !this.#silent && inFlight < credit,
      take: (task, deliveries) => {
        inFlight++
        this.#held.set(task, queue)
        channel.push(this.#delivery(kind, queue, task, deliveries, () => inFlight--))
      },
    }
    const stop = () => {
      queue.leave(taker)
      for (const unread of channel.cut()) if (!this.#life.closed) unread.giveBack(0)
    }
    const forget = this.#life.onEnd(signal, stop)
    if (!signal.aborted) queue.join(taker)
    try {
      yield* channel
    } finally {
      forget()
      stop()
    }
  }

  #delivery(kind: TaskKind, queue: TaskQueue, task: QueuedTask, deliveries: number, release: () => void): RawDelivery {
    const settle = (how: () => void) => {
      this.#life.assertOpen()
      this.#held.delete(task)
      release()
      how()
      queue.dispatch()
    }
    return {
      id: task.id,
      subject: subjects.task(this.run, kind, task.id),
      bytes: task.bytes,
      deliveries,
      done: async () => {
        await this.#turn()
        settle(() => queue.finish(task))
      },
      giveBack: (delayMs) => settle(() => queue.giveBack(task, delayMs)),
    }
  }

  async append(event: EventName, id: string, bytes: Uint8Array): Promise<{ duplicate: boolean }> {
    await this.#turn()
    return { duplicate: !this.#net.log.append(event, id, bytes) }
  }

  async find(event: EventName, id: string): Promise<RawRecord | null> {
    await this.#turn()
    const entry = this.#net.log.find(event, id)
    return entry && this.#raw(entry)
  }

  async await(event: EventName, id: string, signal: AbortSignal): Promise<RawRecord> {
    await this.#turn()
    signal.throwIfAborted()
    const known = this.#net.log.find(event, id)
    if (known) return this.#raw(known)
    return new Promise<RawRecord>((resolve, reject) => {
      const unlisten = this.#net.log.listen((entry) => {
        if (entry.event !== event || entry.id !== id) return
        unlisten()
        forget()
        resolve(this.#raw(entry))
      })
      const forget = this.#life.onEnd(signal, (reason) => {
        unlisten()
        reject(reason as Error)
      })
    })
  }

  async *read(events: readonly EventName[], options: ReadOptions): AsyncGenerator<RawRecord> {
    await this.#turn()
    const wanted = new Set(events)
    const channel = new Channel<LogEntry>()
    for (const entry of this.#net.log.from(options.fromSeq ?? 1)) channel.push(entry)
    const unlisten = options.follow ? this.#net.log.listen((entry) => channel.push(entry)) : () => {}
    const forget = this.#life.onEnd(options.signal, () => channel.cut())
    if (!options.follow) channel.end()
    try {
      for await (const entry of channel) if (wanted.has(entry.event)) yield this.#raw(entry)
    } finally {
      unlisten()
      forget()
    }
  }

  #raw(entry: LogEntry): RawRecord {
    return { ...entry, subject: subjects.log(this.run, entry.event, entry.id) }
  }

  sendLive(kind: LiveKind, bytes: Uint8Array): void {
    if (this.#life.closed) return
    for (const listener of [...this.#net.liveListeners]) listener(kind, this.by, bytes)
  }

  onLive(kind: LiveKind, handler: (from: string, subject: string, bytes: Uint8Array) => void): () => void {
    this.#life.assertOpen()
    const listener = (sent: LiveKind, from: string, bytes: Uint8Array) => {
      if (sent === kind) handler(from, subjects.live(this.run, from, kind), bytes)
    }
    this.#net.liveListeners.add(listener)
    const off = this.#life.onEnd(null, () => this.#net.liveListeners.delete(listener))
    return () => {
      this.#net.liveListeners.delete(listener)
      off()
    }
  }

  async getValue(key: string): Promise<RawValue | null> {
    await this.#turn()
    return this.#net.value(keyOf(key)) ?? null
  }

  async putValue(key: string, bytes: Uint8Array): Promise<void> {
    await this.#turn()
    this.#net.setValue(keyOf(key), bytes)
  }

  async moveValue(key: string, bytes: Uint8Array, expected: number | null): Promise<boolean> {
    await this.#turn()
    if ((this.#net.value(keyOf(key))?.revision ?? null) !== expected) return false
    this.#net.setValue(key, bytes)
    return true
  }

  async *watchValue(key: string, signal: AbortSignal): AsyncGenerator<RawValue> {
    await this.#turn()
    const channel = new Channel<RawValue>()
    const now = this.#net.value(keyOf(key))
    if (now) channel.push(now)
    const unwatch = this.#net.watchValues((changed, value) => {
      if (changed === key) channel.push(value)
    })
    const forget = this.#life.onEnd(signal, () => channel.cut())
    try {
      yield* channel
    } finally {
      unwatch()
      forget()
    }
  }

  async putBlob(bytes: Uint8Array): Promise<string> {
    await this.#turn()
    return this.#net.blobs.putBlob(bytes)
  }

  async getBlob(name: string): Promise<Uint8Array> {
    await this.#turn()
    return this.#net.blobs.getBlob(name)
  }

  async deleteBlob(name: string): Promise<void> {
    await this.#turn()
    this.#net.blobs.delete(name)
  }

  async close(): Promise<void> {
    if (!this.#life.closed) this.#leave(0)
    return Promise.resolve()
  }

  /** The process of this bus dies: its tasks come back after the acknowledgement time. */
  crash(): void {
    if (!this.#life.closed) this.#leave(this.#net.ackWaitMs)
  }

  /**
   * The process of this bus hangs until the returned function is called: after the acknowledgement time others get what
   * it holds, and nothing new is handed to it. What it says afterwards counts like anything else.
   */
  hang(): () => void {
    const lapse = () => {
      this.#silent = true
      for (const [task, queue] of this.#held) queue.giveBack(task, 0)
    }
    const timer = this.#net.clock.setTimeout(lapse, this.#net.ackWaitMs)
    return () => {
      this.#net.clock.clearTimeout(timer)
      this.#silent = false
      this.#net.dispatch()
    }
  }

  #leave(delayMs: number): void {
    this.#life.end()
    for (const [task, queue] of this.#held) queue.giveBack(task, delayMs)
    this.#held.clear()
  }

  /** Like a network, an operation takes effect in a later turn, and never on a closed bus. */
  async #turn(): Promise<void> {
    this.#life.assertOpen()
    await Promise.resolve()
    this.#life.assertOpen()
  }
}
