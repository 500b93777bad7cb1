/** The program as a user runs it: a process of its own, its JSON lines, its end. */
import { spawn } from 'node:child_process'
import { join } from 'node:path'
import { PACKAGE_ROOT } from '../../configs/load.ts'
import type { EvolveEvent } from '../../runners/cli/events.ts'

const BIN = join(PACKAGE_ROOT, 'runners', 'bin.mjs')

export interface Ended {
  readonly code: number | null
  readonly signal: NodeJS.Signals | null
  readonly stdout: string
  readonly stderr: string
}

export interface Program {
  readonly pid: number
  /** What it has said on stdout so far; with `--json` of `evolve`. */
  events(): EvolveEvent[]
  /** How many lines it has said on stdout. */
  readonly lines: number
  /** Resolves when an event of this name is there; rejects when the program ends before. */
  said(event: EvolveEvent['event']): Promise<void>
  kill(signal: NodeJS.Signals): void
  readonly ended: Promise<Ended>
}

export interface StartOptions {
  readonly cwd?: string
  readonly env?: NodeJS.ProcessEnv
  /** Another entry of the program than its own. */
  readonly entry?: string
  /** A command that runs it, such as `ip netns exec NAME`. */
  readonly within?: readonly string[]
}

export function startProgram(args: readonly string[], options: StartOptions = {}): Program {
  const { entry = BIN, within = [], ...rest } = options
  const [command, ...all] = [...within, process.execPath, entry, ...args]
  const child = spawn(command!, all, { stdio: ['ignore', 'pipe', 'pipe'], ...rest })
  let stdout = ''
  let stderr = ''
  child.stderr.on('data', (data: Buffer) => (stderr += data.toString()))
  child.stdout.on('data', (data: Buffer) => (stdout += data.toString()))
  const ended = new Promise<Ended>((resolve) =>
    child.once('close', (code, signal) => resolve({ code, signal, stdout, stderr })),
  )
  const events = () => {
    const lines = stdout.split('\n').slice(0, -1)
    return lines.map((line) => JSON.parse(line) as EvolveEvent)
  }
  return {
    pid: child.pid!,
    events,
    get lines() {
      return stdout.split('\n').length - 1
    },
    said: (event) =>
      new Promise((resolve, reject) => {
        const look = () => events().some((e) => e.event === event) && resolve()
        child.stdout.on('data', look)
        void ended.then(() => reject(new Error(`ended without "${event}": ${stderr}`)))
        look()
      }),
    kill: (signal) => child.kill(signal),
    ended,
  }
}

/** Runs it to its end. */
export const program = (args: readonly string[], options?: StartOptions): Promise<Ended> =>
  startProgram(args, options).ended
