/** Where one fault is made to happen: its runs and their helpers, what was measured, what did not hold. */
import { mkdir } from 'node:fs/promises'
import { createServer, type AddressInfo } from 'node:net'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { startProgram, type Program, type StartOptions } from '../support/program.ts'
import type { Failure } from './fault.ts'
import type { Misfortune } from './misfortune.ts'
import type { Reference } from './reference.ts'
import { Run } from './run.ts'
import { StandstillError } from './standstill.ts'

const LAUNCH = new URL('./launch.mjs', import.meta.url).pathname

export interface Circumstances {
  readonly misfortune?: Misfortune
  /** A command that runs it, such as one of another host. */
  readonly within?: readonly string[]
  readonly env?: NodeJS.ProcessEnv
  /** Another program than this one, such as another release of it. */
  readonly entry?: string
}

export class Lab {
  readonly failures: Failure[] = []
  /** Seconds from a fault to the next progress. */
  readonly recoveries: number[] = []
  readonly figures: Record<string, number | string> = {}
  readonly #programs = new Set<Program>()
  readonly #closing: (() => Promise<void>)[] = []
  readonly #runs: Run[] = []

  constructor(
    readonly dir: string,
    readonly reference: Reference,
    readonly say: (message: string) => void,
  ) {}

  /** Starts a program that dies with the laboratory, if not before. */
  start(args: readonly string[], { misfortune, within, env, entry }: Circumstances = {}): Program {
    const options: StartOptions = {
      ...(misfortune ? { entry: LAUNCH } : entry !== undefined && { entry }),
      ...(within && { within }),
      env: { ...process.env, ...env, ...(misfortune && { MISFORTUNE: JSON.stringify(misfortune) }) },
    }
    const program = startProgram(args, options)
    this.#programs.add(program)
    void program.ended.then(() => this.#programs.delete(program))
    return program
  }

  /** Starts a run, and waits until it can be joined. */
  async run(steps: number, args: readonly string[] = [], how: Circumstances = {}): Promise<Run> {
    await mkdir(this.dir, { recursive: true })
    const name = `run-${this.#runs.length + 1}`
    const run = new Run(this, { name, folder: join(this.dir, name), steps, port: await freePort(), args, how })
    this.#runs.push(run)
    this.#closing.push(() => run.close())
    await run.begin()
    return run
  }

  /** Does something at the end, whatever happens. */
  finally(work: () => Promise<void>): void {
    this.#closing.push(work)
  }

  expect(holds: boolean, invariant: Failure['invariant'], message: string): void {
    if (!holds) this.failures.push({ invariant, message })
  }

  /** Waits until `look` is true; what has not happened after `seconds` is a failure, and ends the row. */
  async until(what: string, look: () => boolean | Promise<boolean>, seconds = 60): Promise<void> {
    const deadline = Date.now() + seconds * 1000
    while (!(await look())) {
      if (Date.now() > deadline) throw new StandstillError(`${what}: not within ${seconds} s`)
      await sleep(15)
    }
  }

  /** What a standstill comes from, if the queue and the log tell. */
  async explain(): Promise<void> {
    const lost = await this.#runs.at(-1)?.lost()
    if (lost && lost.length > 0) this.expect(false, 'one-end', `acknowledged, and without a result: ${lost.join(', ')}`)
  }

  async close(): Promise<void> {
    for (const work of this.#closing.splice(0).toReversed()) await work()
    const left = [...this.#programs]
    for (const program of left) {
      program.kill('SIGCONT')
      program.kill('SIGKILL')
    }
    await Promise.all(left.map((program) => program.ended))
  }
}

async function freePort(): Promise<number> {
  const server = createServer()
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as AddressInfo
  await new Promise((resolve) => server.close(resolve))
  return port
}
