/** Who joins and leaves a run, for its terminal, and so that nobody is left behind at its end. */
import { setTimeout as sleep } from 'node:timers/promises'
import type { Bus } from '../../bus/bus.ts'
import { PROCESS_NAME } from './instance.ts'

/** Heartbeats come every two seconds. */
const GONE_MS = 10_000

/** A process that joins says so on the bus, and that it leaves; between these its actors' heartbeats tell that it lives. */
export const sayHello = (bus: Bus): void => bus.live('progress', { message: HELLO, values: {} })
export const sayGoodbye = (bus: Bus): void => bus.live('progress', { message: GOODBYE, values: {} })
const HELLO = 'joining'
const GOODBYE = 'leaving'

export class Guests {
  /** Process → when it was heard last. */
  readonly #heard = new Map<string, number>()
  readonly #stops: readonly (() => void)[]
  readonly #timer: NodeJS.Timeout

  constructor(
    bus: Bus,
    private readonly onNote: (message: string) => void,
  ) {
    this.#stops = [
      bus.onLive('progress', (from, { data: { message } }) => {
        const process = processOf(from)
        if (message === HELLO) this.#hear(process)
        if (message === GOODBYE && this.#heard.delete(process)) this.onNote(`${process} has left the run`)
      }),
      bus.onLive('heartbeat', (from) => {
        const process = processOf(from)
        if (process !== PROCESS_NAME) this.#hear(process)
      }),
    ]
    this.#timer = setInterval(() => this.#sweep(), GONE_MS / 4)
  }

  /** Resolves when all have left, or after `ms`. */
  async left(ms: number): Promise<void> {
    for (let waited = 0; this.#heard.size > 0 && waited < ms; waited += 50) await sleep(50)
  }

  close(): Promise<void> {
    clearInterval(this.#timer)
    for (const stop of this.#stops) stop()
    return Promise.resolve()
  }

  #hear(process: string): void {
    if (!this.#heard.has(process)) this.onNote(`${process} joins the run`)
    this.#heard.set(process, Date.now())
  }

  #sweep(): void {
    for (const [process, at] of this.#heard) {
      if (Date.now() - at < GONE_MS) continue
      this.#heard.delete(process)
      this.onNote(`nothing is heard of ${process} any more; its work goes to the others`)
    }
  }
}

/** Senders are `role.host-pid-n`. */
const processOf = (from: string): string => from.slice(from.indexOf('.') + 1).replace(/-\d+$/, '')
