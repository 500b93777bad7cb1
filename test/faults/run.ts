/** A run under test: its process, who joined it, what its bus says, and the proof at its end. */
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { Invariant } from '../../actors/audit.ts'
import type { LiveData } from '../../bus/messages.ts'
import type { Tap } from '../../bus/nats/tap.ts'
import type { JoinEvent } from '../../runners/join/join.ts'
import { decodeHeard } from '../../runners/tap/decode.ts'
import { openTap } from '../../runners/tap/open.ts'
import { program, type Program } from '../support/program.ts'
import type { Failure } from './fault.ts'
import { Intruder } from './intruder.ts'
import { StandstillError } from './standstill.ts'
import type { Circumstances, Lab } from './lab.ts'
import { lostRequests } from './lost.ts'
import { runArgs, shaOf } from './reference.ts'

export interface RunOptions {
  readonly name: string
  readonly folder: string
  readonly steps: number
  readonly port: number
  readonly args: readonly string[]
  readonly how: Circumstances
}

/** Actors of one process that joins: all that share their work. */
export const ALL = 'model=1,judge=1,reasoner=1,questioner=1'
/** The process that starts the run leaves the work to those who join. */
export const NO_WORKERS = ['--set', 'workers=[]']
/** Work for everybody in every step. */
export const SINGLE = ['--set', 'groups.perTask=1']
export const NO_MODEL = ['--set', 'workers=[judge,reasoner,questioner]']

const ENTERS_MS = 60_000

interface Violation {
  readonly event: string
  readonly invariant: Failure['invariant']
  readonly about: string
  readonly message: string
  /** Of the totals. */
  readonly epoch: number
}

export interface ProveOptions {
  /** The run must have ended by then. */
  readonly seconds?: number
  readonly sameWeights?: boolean
  /** Invariants that this fault breaks for certain. */
  readonly except?: readonly Invariant[]
}

export class Run {
  readonly #lab: Lab
  readonly #options: RunOptions
  #program: Program | null = null
  /** How it ended. */
  #ended: string | null = null
  #tap: { readonly tap: Tap; close(): Promise<void> } | null = null

  constructor(lab: Lab, options: RunOptions) {
    this.#lab = lab
    this.#options = options
  }

  get folder(): string {
    return this.#options.folder
  }

  get name(): string {
    return this.#options.name
  }

  get port(): number {
    return this.#options.port
  }

  /** The process of the run itself. */
  get program(): Program {
    return this.#program!
  }

  async begin(): Promise<void> {
    const { folder, name, steps, port, args, how } = this.#options
    await this.#watch(this.#lab.start([...runArgs(folder, name, steps), '--port', String(port), ...args], how))
  }

  /** Goes on with a run whose process is gone. */
  async resume(how: Circumstances = {}): Promise<void> {
    await this.#closeTap()
    await this.#watch(this.#lab.start(['evolve', '--json', '--resume', this.folder], how))
  }

  async #watch(program: Program): Promise<void> {
    this.#program = program
    this.#ended = null
    void program.ended.then(({ code, signal, stderr }) => {
      if (program === this.#program) this.#ended = `it ended with ${code ?? signal}: ${stderr.split('\n').at(-2) ?? ''}`
    })
    await program.said('join')
  }

  /** A process joins with some actors, and is at work when this resolves. */
  async join(actors: string, how: Circumstances = {}, { url, role = 'worker' }: JoinHow = {}): Promise<Program> {
    const joining = this.joining(actors, how, { ...(url !== undefined && { url }), role })
    const joined = () => joinEvents(joining).some(({ event }) => event === 'joined')
    await this.#lab.until('joining', async () => {
      const ended = await Promise.race([joining.ended, Promise.resolve(null)])
      if (ended) throw new Error(`join ended with ${ended.code}: ${ended.stderr}`)
      return joined()
    })
    return joining
  }

  /** The same, not waited for. */
  joining(actors: string, how: Circumstances = {}, { url, role = 'worker' }: JoinHow = {}): Program {
    const creds = join(this.folder, 'nats', `${role}.creds`)
    const server = url ?? `nats://127.0.0.1:${this.port}`
    const args = ['join', server, '--creds', creds, '--run', this.name, '--actors', actors, '--json']
    return this.#lab.start(args, how)
  }

  /** Process of the NATS server. */
  async server(): Promise<number> {
    return Number(await readFile(join(this.folder, 'nats', 'nats.pid'), 'utf8'))
  }

  /** Steps that the terminal of the run has seen. */
  get steps(): number {
    return this.program.events().filter(({ event }) => event === 'step').length
  }

  get over(): boolean {
    return this.program.events().some(({ event }) => event === 'done')
  }

  async step(atLeast: number, seconds = 60): Promise<void> {
    await this.#lab.until(`step ${atLeast}`, () => this.#alive() && (this.over || this.steps >= atLeast), seconds)
  }

  /** Waits for the next step after a fault that began at `since`, and notes how long that took. */
  async recover(since: number, seconds = 60): Promise<void> {
    const before = this.steps
    await this.#lab.until('recovery', () => this.#alive() && (this.over || this.steps > before), seconds)
    this.#lab.recoveries.push((Date.now() - since) / 1000)
  }

  #alive(): boolean {
    if (this.#ended !== null && !this.over) throw new Error(this.#ended)
    return true
  }

  async tap(): Promise<Tap> {
    this.#tap ??= await openTap(undefined, this.folder)
    return this.#tap.tap
  }

  /** Somebody on its bus who may do everything; leaves with the laboratory. */
  async intruder(): Promise<Intruder> {
    const intruder = await Intruder.open(this.folder, this.name)
    this.#lab.finally(() => intruder.close())
    return intruder
  }

  /** Requests that were lost, if the run is under way. */
  async lost(): Promise<string[]> {
    return this.over ? [] : lostRequests(await this.intruder())
  }

  async #closeTap(): Promise<void> {
    const open = this.#tap
    this.#tap = null
    await open?.close().catch(() => {})
  }

  /** Resolves when an actor of a role in one of some processes enters a state of its machine. */
  async enters(state: string, role: string, ...programs: readonly Program[]): Promise<void> {
    const signal = AbortSignal.timeout(ENTERS_MS)
    const pids = programs.map(({ pid }) => pid)
    const options = { filter: `live.${role}.*.transition`, since: null, follow: true, signal }
    for await (const heard of (await this.tap()).listen(options)) {
      const line = await decodeHeard(heard, await this.tap())
      if (!('data' in line) || !pids.some((pid) => line.subject.includes(`-${pid}-`))) continue
      if ((line.data as LiveData<'transition'>).to === state) return
    }
    throw new StandstillError(`no ${role} of process ${pids.join(', ')} was ${state} within ${ENTERS_MS / 1000} s`)
  }

  /** The run ends by itself, its log proves that nothing was lost, and its weights are those of an undisturbed run. */
  async prove({ seconds = 120, sameWeights = true, except = [] }: ProveOptions = {}): Promise<void> {
    const { expect, reference } = this.#lab
    const said = expect.bind(this.#lab)
    await this.#lab.until('the end of the run', () => this.#alive() && this.over, seconds)
    const { code, stderr } = await this.program.ended
    said(code === 0, 'progress', `the run ended with ${code}: ${stderr.split('\n').at(-2) ?? ''}`)
    await this.#closeTap()
    await this.audit(except)
    if (!sameWeights) return
    const [sha, wanted] = await Promise.all([shaOf(this.folder), reference.sha(this.#options.steps)])
    said(sha === wanted, 'same-weights', `the weights are ${sha.slice(0, 12)}, undisturbed ${wanted.slice(0, 12)}`)
  }

  /** Checks the invariants of the log, now. */
  async audit(except: readonly Invariant[] = []): Promise<void> {
    const { stdout, stderr, code } = await program(['audit', this.folder, '--json'])
    const lines = stdout.split('\n').slice(0, -1)
    for (const line of lines.map((text) => JSON.parse(text) as Violation)) {
      if (line.event === 'done') this.#lab.figures['epochs'] = line.epoch
      if (line.event !== 'violation' || except.some((name) => name === line.invariant)) continue
      this.#lab.expect(false, line.invariant, `${line.about}: ${line.message}`)
    }
    if (lines.length === 0) throw new Error(`audit ended with ${code}: ${stderr}`)
  }

  async close(): Promise<void> {
    await this.#closeTap()
  }
}

interface JoinHow {
  readonly url?: string
  readonly role?: 'worker' | 'optimizer'
}

export const joinEvents = (joining: Program): JoinEvent[] => joining.events() as unknown as JoinEvent[]
