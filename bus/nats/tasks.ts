/** Work queues on JetStream: publishing, and pulling with credit. */
import { createInbox, nanos, type Msg, type Subscription } from '@nats-io/nats-core'
import type { RawDelivery } from '../carrier.ts'
import { Channel } from '../channel.ts'
import type { Lifetime } from '../lifetime.ts'
import type { TaskKind } from '../messages.ts'
import { stores, subjects } from '../subjects.ts'
import type { HeldTasks } from './held-tasks.ts'
import { isRepeat, patiently } from './patience.ts'
import type { Shared } from './shared.ts'
import { durable, makeConsumer } from './task-consumers.ts'
import { TaskMessage } from './task-message.ts'

/**
 * A pull request that nothing answers ends by itself after this time: what a process asked for that stands still goes to
 * others then, instead of to it again and again.
 */
const PULL_EXPIRES_MS = 5_000

/**
 * Puts a task on the queue, once per id. The stream holds one message of a subject at a time; `again` passes by the
 * memory of those that were there a short time ago.
 */
export async function publishTask(
  shared: Shared,
  life: Lifetime,
  kind: TaskKind,
  id: string,
  bytes: Uint8Array,
  again: boolean,
): Promise<void> {
  const subject = subjects.task(shared.run, kind, id)
  await patiently(shared, life, `publishing ${subject}`, async () => {
    try {
      await shared.publisher.publish(subject, bytes, again ? {} : { id: `${kind}.${id}` })
    } catch (error) {
      if (!isRepeat(error)) throw error
    }
  })
}

/**
 * Takes tasks of one kind. `credit` bounds what is asked for plus what is held, so that a slow puller never sits on
 * work that a fast one could do. (The client library's `consume` counts unread messages, not unsettled ones.)
 */
export class TaskPuller {
  readonly #shared: Shared
  readonly #life: Lifetime
  readonly #held: HeldTasks
  readonly #kind: TaskKind
  readonly #credit: number
  readonly #channel = new Channel<RawDelivery>()
  #subscription: Subscription | null = null
  /** Asked for and not yet arrived. */
  #requested = 0
  /** Arrived and not yet settled. */
  #inFlight = 0
  #inbox = ''
  #serial = 0
  #stopped = false
  #silenceTimer: NodeJS.Timeout | undefined

  constructor(shared: Shared, life: Lifetime, held: HeldTasks, kind: TaskKind, credit: number) {
    this.#shared = shared
    this.#life = life
    this.#held = held
    this.#kind = kind
    this.#credit = credit
  }

  /** Deliveries until the signal aborts or the bus closes; what nobody has read by then goes back. */
  async *run(signal: AbortSignal): AsyncGenerator<RawDelivery> {
    await this.#ensureConsumer()
    const unlisten = this.#shared.link.onBack(() => this.#restart())
    const stop = () => {
      this.#stopped = true
      unlisten()
      this.#endRequests()
      for (const unread of this.#channel.cut()) if (!this.#life.closed) unread.giveBack(0)
    }
    const forget = this.#life.onEnd(signal, stop)
    if (!signal.aborted) this.#restart()
    try {
      yield* this.#channel
    } finally {
      forget()
      stop()
    }
  }

  async #ensureConsumer(): Promise<void> {
    const { jsm, run, ackWaitMs } = this.#shared
    await patiently(this.#shared, this.#life, `pulling ${this.#kind}`, () =>
      makeConsumer(jsm, run, this.#kind, ackWaitMs),
    )
  }

  /** Requests of an earlier connection may be answered still: a new inbox keeps them apart. */
  #restart(): void {
    this.#endRequests()
    const inbox = createInbox(this.#shared.inboxPrefix)
    this.#inbox = inbox
    this.#subscription = this.#shared.connection.subscribe(`${inbox}.*`, {
      callback: (error, message) => {
        if (!error) this.#receive(message, inbox === this.#inbox)
      },
    })
    this.#request()
  }

  /** Messages on their way to the old inbox still arrive, and go back at once if it is too late for them. */
  #endRequests(): void {
    clearTimeout(this.#silenceTimer)
    this.#subscription?.drain().catch(() => {})
    this.#subscription = null
    this.#requested = 0
  }

  /** Asks for what the credit allows, a quarter of it at a time at least, so that few requests serve many tasks. */
  #request(): void {
    if (this.#subscription === null) return
    const free = this.#credit - this.#inFlight - this.#requested
    if (free <= 0 || (this.#requested > 0 && free < this.#credit / 4)) return
    this.#requested += free
    const subject = `$JS.API.CONSUMER.MSG.NEXT.${stores.tasks(this.#shared.run)}.${durable(this.#kind)}`
    const body = JSON.stringify({ batch: free, expires: nanos(PULL_EXPIRES_MS) })
    this.#shared.connection.publish(subject, body, { reply: `${this.#inbox}.${++this.#serial}` })
    this.#expectSound()
  }

  /** Every request is answered or expires; silence beyond that means that its answer was lost. */
  #expectSound(): void {
    clearTimeout(this.#silenceTimer)
    this.#silenceTimer = setTimeout(() => this.#restart(), PULL_EXPIRES_MS + 5000).unref()
  }

  #receive(message: Msg, current: boolean): void {
    if (message.reply) {
      if (current) this.#requested = Math.max(0, this.#requested - 1)
      this.#accept(message)
    } else if (current) this.#hearStatus(message)
  }

  #accept(message: Msg): void {
    const task = new TaskMessage(message, this.#shared)
    if (this.#stopped) {
      task.nak()
      return
    }
    this.#inFlight++
    const settle = this.#held.add(task, () => {
      this.#inFlight--
      this.#request()
    })
    this.#channel.push({
      id: task.subject.slice(task.subject.lastIndexOf('.') + 1),
      subject: task.subject,
      bytes: task.bytes,
      deliveries: task.deliveries,
      done: async () => {
        settle(() => task.ack())
        return Promise.resolve()
      },
      giveBack: (delayMs) => settle(() => task.nak(delayMs)),
    })
  }

  /** 408: the request expired; 409: it was refused, its consumer deleted or its server stopped; 503: nobody there. */
  #hearStatus(message: Msg): void {
    const code = message.headers?.code ?? 0
    if (code === 100) return
    const unanswered = Number(message.headers?.get('Nats-Pending-Messages') || this.#requested)
    this.#requested = Math.max(0, this.#requested - unanswered)
    if (code === 408 || code === 404) this.#request()
    else void this.#recover()
  }

  async #recover(): Promise<void> {
    this.#endRequests()
    try {
      await new Promise((resolve) => setTimeout(resolve, 250).unref())
      await this.#ensureConsumer()
      if (!this.#stopped) this.#restart()
    } catch (error) {
      this.#channel.fail(error)
    }
  }
}
