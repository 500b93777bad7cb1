/**
 * What machines get instead of a bus: the one place where XState and the bus meet. Machines see plain data (`TaskRef`),
 * promises and callbacks; deliveries, subscriptions and their signals stay here.
 */
import { fromCallback, fromPromise, type CallbackActorLogic, type EventObject, type PromiseActorLogic } from 'xstate'
import type { Bus, HeadEntry, LogRecord, Traced } from '../bus/bus.ts'
import { systemClock, type Clock } from '../bus/clock.ts'
import { MAX_DELIVERIES } from '../bus/limits.ts'
import type { Completion, EventName, Task, TaskKind } from '../bus/messages.ts'
import { within } from '../bus/within.ts'
import { DeadTasks, LostCauseError } from './dead-tasks.ts'
import { whileFree, whileHeld, type Holder } from './lease.ts'

/** One delivery of a task as plain data. `key` names the delivery. */
export interface TaskRef<K extends TaskKind = TaskKind> extends Traced {
  readonly key: string
  readonly kind: K
  readonly id: string
  readonly deliveries: number
  readonly data: Task<K>
}

/** `credit`: deliveries in flight at once. */
export interface TaskSource {
  readonly kind: TaskKind
  readonly credit: number
}

/** Work that an actor of the user's may take over while the run goes on. */
const REPLACEABLE = ['questioner.images', 'reasoner.questions', 'judge.groups'] as const satisfies readonly TaskKind[]
export type ReplaceableKind = (typeof REPLACEABLE)[number]
export const isReplaceable = (kind: string): kind is ReplaceableKind =>
  (REPLACEABLE as readonly string[]).includes(kind)

export type TaskEvent<K extends TaskKind = TaskKind> = { type: 'task'; task: TaskRef<K> }
export type HeadMoved = { type: 'head'; entry: HeadEntry }

/** Tasks that are answered by an event of the same id. */
export type RequestKind = 'model.generate' | 'model.logprobs' | 'model.gradient'
/** The event that answers it. */
export const REPLIES = {
  'model.generate': 'generated',
  'model.logprobs': 'logprobs',
  'model.gradient': 'gradient',
} as const
export type ReplyOf<K extends RequestKind> = (typeof REPLIES)[K]

/** A prompt with its image; `key` as in the schema. */
export type Prompt = NonNullable<Task<'model.generate'>['also']>[number]
export type SampleSettings = Omit<Task<'model.generate'>, 'key' | 'image' | 'prompt' | 'also'>

export interface RequestOptions {
  readonly parent?: Traced
  readonly signal: AbortSignal
  /** The request may have been made before: look for its reply first. */
  readonly again: boolean
}

export type RecordOf<E extends EventName> = { [K in E]: LogRecord<K> }[E]

interface Open {
  readonly deliveries: number
  readonly divisible: boolean
  ack(): Promise<void>
  retry(delayMs?: number): void
  fail(cause: string): Promise<void>
}

export interface PortsOptions {
  readonly clock?: Clock
  /** Takes the place of the actors of the run that do the same work, as long as this one lives. */
  readonly replaces?: Holder
  /** Told of what is survivable but should not pass unseen. */
  readonly onWarning?: (message: string, error: unknown) => void
}

export class Ports {
  readonly bus: Bus
  readonly clock: Clock
  readonly #open = new Map<string, Open>()
  readonly #settling = new Set<Promise<void>>()
  readonly #dead: DeadTasks
  readonly #onWarning: (message: string, error: unknown) => void
  readonly #replaces: Holder | null
  #keys = 0
  #closing = false

  constructor(bus: Bus, options: PortsOptions = {}) {
    this.bus = bus
    this.clock = options.clock ?? systemClock
    this.#onWarning = options.onWarning ?? (() => {})
    this.#replaces = options.replaces ?? null
    this.#dead = new DeadTasks((signal, tell) => this.follow<'dead' | 'retried'>(['dead', 'retried'], signal, tell))
  }

  /** Deliveries held by this actor. */
  get inFlight(): number {
    return this.#open.size
  }

  /** Silent while closing: what breaks then was given back. */
  warn(message: string, error: unknown): void {
    if (!this.#closing) this.#onWarning(message, error)
  }

  /** Sends `task` for every delivery. Stopping it takes no more; nor does it between `pause`, answered by `paused`, and `resume`. */
  pulling(...sources: readonly TaskSource[]): CallbackActorLogic<EventObject> {
    return fromCallback<EventObject>(({ sendBack, receive }) => {
      const take = () => this.take(sources, (task) => sendBack({ type: 'task', task } as EventObject))
      let stop: (() => void) | null = take()
      receive(({ type }) => {
        if (type === 'resume') stop ??= take()
        if (type !== 'pause') return
        stop?.()
        stop = null
        sendBack({ type: 'paused' })
      })
      return () => stop?.()
    })
  }

  /** Calls `begin` for every delivery until the returned function is called. */
  take(sources: readonly TaskSource[], begin: (task: TaskRef) => void): () => void {
    const controller = new AbortController()
    for (const { kind, credit } of sources) {
      const take = (signal: AbortSignal) =>
        this.persist(`taking ${kind} tasks`, signal, () => this.#pull(kind, credit, signal, begin))
      this.finishing(this.#inTurn(kind, controller.signal, take))
    }
    return () => controller.abort()
  }

  /** The work of a role goes to one kind of actor: to those that replace it, while there are any. */
  async #inTurn(kind: TaskKind, signal: AbortSignal, take: (signal: AbortSignal) => Promise<void>): Promise<void> {
    if (!isReplaceable(kind)) return take(signal)
    const lease = { bus: this.bus, clock: this.clock, key: `claim.${kind}` }
    const me = this.#replaces
    await this.persist(`watching who takes ${kind} tasks`, signal, () =>
      me === null ? whileFree(lease, signal, take) : whileHeld({ ...lease, me, preempt: true }, signal, take),
    )
  }

  async #pull<K extends TaskKind>(
    kind: K,
    credit: number,
    signal: AbortSignal,
    begin: (task: TaskRef) => void,
  ): Promise<void> {
    for await (const delivery of this.bus.pull(kind, { credit, signal })) {
      const { id, deliveries, message } = delivery
      const key = `${id}.${++this.#keys}`
      this.#open.set(key, delivery)
      const task: TaskRef<K> = { key, kind, id, deliveries, data: message.data, traceparent: message.traceparent }
      begin(task as TaskRef)
    }
  }

  /** The result of a delivery is in the log. */
  ack(key: string): void {
    this.#settle(key, (delivery) => delivery.ack())
  }

  /**
   * A delivery did not work out: again later, or given up after the last delivery or for a lost cause. One of several
   * items is divided at once: most of them work out alone.
   */
  giveBack(key: string, error: unknown): void {
    this.#settle(key, async (delivery) => {
      const last = delivery.deliveries >= MAX_DELIVERIES || error instanceof LostCauseError
      if (last || delivery.divisible) await delivery.fail(causeOf(error))
      else delivery.retry(backoffMs(delivery.deliveries))
    })
    this.warn(`task ${key} did not work out`, error)
  }

  /** A delivery that somebody else should do, now. */
  handOver(key: string): void {
    this.#settle(key, async (delivery) => {
      delivery.retry(0)
      return Promise.resolve()
    })
  }

  /** Work that ends when it is told to, and has something to give back first: `close` waits for it. */
  finishing(work: Promise<void>): void {
    const finished = work.finally(() => this.#settling.delete(finished))
    this.#settling.add(finished)
  }

  #settle(key: string, how: (delivery: Open) => Promise<void>): void {
    const delivery = this.#open.get(key)
    if (!delivery) return
    this.#open.delete(key)
    // Unsettled work comes back by itself and finds its result in the log.
    this.finishing(how(delivery).catch((error: unknown) => this.warn(`settling ${key}`, error)))
  }

  /** Puts a request on the queue and waits for its reply in the log; rejects with DeadTaskError when it is given up. */
  async request<K extends RequestKind>(
    kind: K,
    id: string,
    task: Task<K>,
    { parent, signal, again }: RequestOptions,
  ): Promise<LogRecord<ReplyOf<K>>> {
    const event = REPLIES[kind]
    const known = again ? await this.bus.find(event, id) : null
    if (known) return known
    return this.#dead.unless(kind, id, signal, async (alive) => {
      await this.bus.publish(kind, id, task, parent)
      return this.bus.await(event, id, alive)
    })
  }

  /**
   * Samples some prompts under the same settings: `completions` has those of each prompt. Rejects when the prompts of a
   * rollout could not be sampled together, besides when the request is given up.
   */
  async sample(
    id: string,
    [first, ...also]: readonly Prompt[],
    settings: SampleSettings,
    options: RequestOptions,
  ): Promise<{ weights: number; completions: readonly (readonly Completion[])[] }> {
    const { text: prompt, ...rest } = first!
    const request = { ...settings, ...rest, prompt, also }
    const { weights, completions, error } = (await this.request('model.generate', id, request, options)).message.data
    if (error !== undefined) throw new Error(`the model actor could not sample ${id}: ${error}`)
    const { samples } = settings
    const of = (i: number) => completions.slice(i * samples, (i + 1) * samples)
    return { weights, completions: [first, ...also].map((_, i) => of(i)) }
  }

  /** Runs `apply` on the records of some events, from the beginning of the log on, until it is stopped. */
  following<E extends EventName>(
    events: readonly E[],
    apply: (record: RecordOf<E>) => void | Promise<void>,
  ): PromiseActorLogic<void> {
    return fromPromise(({ signal }) => this.follow(events, signal, apply))
  }

  /** The same as a promise, for logic that has more to do. */
  async follow<E extends EventName>(
    events: readonly E[],
    signal: AbortSignal,
    apply: (record: RecordOf<E>) => void | Promise<void>,
  ): Promise<void> {
    let fromSeq = 1
    await this.persist(`following ${events.join(', ')}`, signal, async () => {
      for await (const record of this.bus.read(events, { follow: true, fromSeq, signal })) {
        await apply(record)
        fromSeq = record.seq + 1
      }
    })
  }

  /** Sends an event made of every record of some events, from the beginning of the log on. */
  sending<E extends EventName>(
    events: readonly E[],
    toEvent: (record: RecordOf<E>) => EventObject,
  ): CallbackActorLogic<EventObject> {
    return fromCallback<EventObject>(({ sendBack }) => {
      const controller = new AbortController()
      void this.follow(events, controller.signal, (record) => sendBack(toEvent(record)))
      return () => controller.abort()
    })
  }

  /** Runs a loop until the signal aborts; one that breaks is said and begun again after a moment. */
  async persist(what: string, signal: AbortSignal, loop: () => Promise<void>): Promise<void> {
    while (!signal.aborted) {
      try {
        await loop()
      } catch (error) {
        if (!signal.aborted) this.warn(what, error)
      }
      if (!signal.aborted) await this.pause(LOOP_BACKOFF_MS, signal)
    }
  }

  /** Waits by the actor's clock; returns early when the signal aborts. */
  pause(ms: number, signal: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      const done = () => {
        this.clock.clearTimeout(timer)
        signal.removeEventListener('abort', done)
        resolve()
      }
      const timer = this.clock.setTimeout(done, ms)
      signal.addEventListener('abort', done, { once: true })
    })
  }

  /** Runs `work` with a signal that aborts after a time by the actor's clock. */
  within<T>(ms: number, work: (signal: AbortSignal) => Promise<T>): Promise<T> {
    return within(ms, work, { clock: this.clock })
  }

  /** Sends `head` with the committed version, at once and whenever it moves. */
  watchingHead(): CallbackActorLogic<EventObject> {
    return fromCallback<EventObject>(({ sendBack }) => {
      const controller = new AbortController()
      void this.persist('watching the head', controller.signal, async () => {
        for await (const entry of this.bus.watchHead(controller.signal)) {
          sendBack({ type: 'head', entry } satisfies HeadMoved)
        }
      })
      return () => controller.abort()
    })
  }

  /** Gives back what is unfinished, at once, and waits until everything is settled. */
  async close(): Promise<void> {
    this.#closing = true
    for (const key of [...this.#open.keys()]) this.handOver(key)
    this.#dead.close()
    await Promise.all(this.#settling)
  }
}

/** Pause before a broken subscription is begun again. */
const LOOP_BACKOFF_MS = 1_000

/** 0.1 s, 0.4 s, 1.6 s, 6.4 s. */
export const backoffMs = (attempt: number): number => 100 * 4 ** (Math.max(1, attempt) - 1)

export const causeOf = (error: unknown): string =>
  error instanceof Error ? `${error.name}: ${error.message}` : String(error)
