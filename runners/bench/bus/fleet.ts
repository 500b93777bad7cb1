/** Processes of model actors that a benchmark starts, asks and ends. */
import { fork, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import { answerSchema, type Answer, type Command, type StartCommand } from './protocol.ts'

const SCRIPT = fileURLToPath(new URL('./actors-process.mjs', import.meta.url))

export class Fleet {
  readonly #members: readonly Member[]

  private constructor(members: readonly Member[]) {
    this.#members = members
  }

  /** Starts so many processes without actors; `onWarning` hears what goes wrong in them and is survived. */
  static async start(processes: number, onWarning: (message: string) => void): Promise<Fleet> {
    const fleet = new Fleet(Array.from({ length: processes }, () => new Member(onWarning)))
    try {
      await Promise.all(fleet.#members.map((member) => member.done()))
      return fleet
    } catch (error) {
      await fleet.close()
      throw error
    }
  }

  get size(): number {
    return this.#members.length
  }

  get pids(): number[] {
    return this.#members.map(({ pid }) => pid)
  }

  /** Spreads `actors` evenly over the processes. */
  async startActors({ actors, ...how }: Omit<StartCommand, 'do'>): Promise<void> {
    const share = (i: number) => Math.floor((actors + this.size - 1 - i) / this.size)
    await this.#ask((i) => ({ do: 'start', actors: share(i), ...how }))
  }

  stopActors(): Promise<void> {
    return this.#ask(() => ({ do: 'stop' }))
  }

  /** Every process reads its share of `bytes` from a plain socket. */
  read(port: number, bytes: number): Promise<void> {
    return this.#ask(() => ({ do: 'read', port, bytes: Math.round(bytes / this.size) }))
  }

  /** Times at which actors had other weights, as they are told from now on. */
  onSwapped(listener: (at: number) => void): () => void {
    const stops = this.#members.map((member) =>
      member.listen((answer) => answer.said === 'swapped' && listener(answer.at)),
    )
    return () => stops.forEach((stop) => stop())
  }

  async close(): Promise<void> {
    await Promise.all(this.#members.map((member) => member.close()))
  }

  async #ask(command: (i: number) => Command): Promise<void> {
    await Promise.all(this.#members.map((member, i) => member.ask(command(i))))
  }
}

class Member {
  readonly #child: ChildProcess
  readonly #listeners = new Set<(answer: Answer) => unknown>()
  readonly #exited: Promise<unknown>

  constructor(onWarning: (message: string) => void) {
    this.#child = fork(SCRIPT, { stdio: ['ignore', 'ignore', 'inherit', 'ipc'] })
    this.#exited = once(this.#child, 'exit').catch(() => undefined)
    this.#child.on('message', (message) => {
      const answer = answerSchema.parse(message)
      for (const listener of [...this.#listeners]) listener(answer)
    })
    this.listen((answer) => answer.said === 'warned' && onWarning(answer.message))
  }

  get pid(): number {
    return this.#child.pid!
  }

  listen(listener: (answer: Answer) => unknown): () => void {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }

  async ask(command: Command): Promise<void> {
    const done = this.done()
    this.#child.send(command)
    await done
  }

  /** Waits for the end of what it does; rejects when that fails, or the process ends. */
  async done(): Promise<void> {
    let forget = () => {}
    const answered = new Promise<void>((resolve, reject) => {
      forget = this.listen((answer) => {
        if (answer.said === 'done') resolve()
        if (answer.said === 'failed') reject(new Error(`a process of model actors: ${answer.message}`))
      })
      void this.#exited.then(() => reject(new Error('a process of model actors has ended')))
    })
    await answered.finally(() => forget())
  }

  async close(): Promise<void> {
    if (this.#child.connected) this.#child.disconnect()
    await this.#exited
  }
}
