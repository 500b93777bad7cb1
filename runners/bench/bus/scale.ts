/** How many model actors one server feeds: throughput beside the ideal, and what the bus costs per completion. */
import { availableParallelism } from 'node:os'
import { accessWith } from '../../../bus/nats/access.ts'
import { Tap } from '../../../bus/nats/tap.ts'
import { digits } from '../measure.ts'
import { withRun, type BenchRun } from './bench-server.ts'
import { commitVersion } from './commit-version.ts'
import type { Fleet } from './fleet.ts'
import { machineCoreSeconds, type Usage, usageOf, usedBetween } from './proc.ts'
import { machineClock } from './protocol.ts'
import { Requests } from './requests.ts'

export interface ScaleSettings {
  readonly actors: number
  /** Of every batch of every device. */
  readonly batchMs: number
  /** Completions of a request, which is a batch. */
  readonly rows: number
  /** Of every completion. */
  readonly tokens: number
  /** Batches of every actor that warm up, and those that count. */
  readonly warmBatches: number
  readonly batches: number
  /** Requests under way for each actor. */
  readonly inFlight: number
}

export const SCALE = { batchMs: 200, rows: 8, tokens: 24, warmBatches: 8, batches: 40, inFlight: 3 } as const

/** `share` of the ideal, which is `actors · rows / batchMs`; cores in seconds per second; the rest per completion. */
export interface ScaleRow {
  readonly row: 'scale'
  readonly actors: number
  readonly processes: number
  readonly completionsPerSecond: number
  readonly share: number
  readonly serverCores: number
  readonly actorCores: number
  readonly askerCores: number
  /** Used by programs that have nothing to do with the benchmark. */
  readonly otherCores: number
  /** What had nothing left: the machine, the server, the actors' processes, or the process that asks; null = nothing. */
  readonly saturated: string | null
  readonly serverMicros: number
  readonly actorMicros: number
  readonly askerMicros: number
  readonly logBytes: number
  readonly serverReadBytes: number
  readonly serverWrittenBytes: number
}

/** Actors of a sweep: 1, 2, 4 … to `most`, and on to `beyond` while the last one was at 95 % of the ideal. */
export async function* sweep(
  fleet: Fleet,
  settings: Omit<ScaleSettings, 'actors'>,
  { most, beyond, signal, onNote }: Limits,
): AsyncGenerator<ScaleRow> {
  for (let actors = 1, share = 1; actors <= most || (actors <= beyond && share >= SCALES); actors *= 2) {
    signal.throwIfAborted()
    onNote(`${actors} simulated model actors in ${fleet.size} processes`)
    const row = await measureScale(fleet, { ...settings, actors }, signal, onNote)
    share = row.share
    yield row
  }
}

export interface Limits {
  readonly most: number
  readonly beyond: number
  readonly signal: AbortSignal
  readonly onNote: (line: string) => void
}

/** Of the ideal: what is above it scales. */
export const SCALES = 0.95

export function measureScale(
  fleet: Fleet,
  settings: ScaleSettings,
  signal: AbortSignal,
  onWarning: (message: string) => void,
): Promise<ScaleRow> {
  const { actors, rows, tokens, batchMs, warmBatches, batches, inFlight } = settings
  return withRun(`scale-${actors}`, 'server', async (bench) => {
    const { run, url, workerCreds: creds, net } = bench
    const owner = net.connect('bench.owner')
    await commitVersion(owner, 0, 1)
    await fleet.startActors({ url, creds, run, actors, batchMs, tokens, rows, adapterBytes: 1, credit: null })
    const requests = await Requests.open(net, onWarning)
    try {
      const replies = new ReplyCounter()
      requests.flood(actors * inFlight, { rows, tokens, minWeights: 0 }, () => replies.count())
      const begin = await replies.reach(actors * warmBatches, signal)
      const before = await observe(fleet, bench)
      // From one reply to another, a whole number of batches of every actor later: so actors in step are counted right.
      const end = await replies.reach(actors * (warmBatches + batches), signal)
      const used = usedSince(before, await observe(fleet, bench))
      const logBytes = await logBytesPerRecord(bench)
      return rowOf(settings, fleet.size, end - begin, used, logBytes)
    } finally {
      await requests.close()
      await fleet.stopActors()
    }
  })
}

class ReplyCounter {
  #replies = 0
  #goal = Infinity
  #reached: (at: number) => void = () => {}

  count(): void {
    if (++this.#replies === this.#goal) this.#reached(machineClock())
  }

  /** Resolves with the time of the reply number `goal`, in milliseconds; rejects when the signal aborts. */
  async reach(goal: number, signal: AbortSignal): Promise<number> {
    signal.throwIfAborted()
    this.#goal = goal
    return new Promise((resolve, reject) => {
      const abort = () => reject(signal.reason as Error)
      signal.addEventListener('abort', abort, { once: true })
      this.#reached = (at) => {
        signal.removeEventListener('abort', abort)
        resolve(at)
      }
    })
  }
}

interface Observed {
  readonly server: Usage
  readonly actors: readonly Usage[]
  readonly asker: Usage
  readonly machine: number
  readonly at: number
}

async function observe({ pids }: Fleet, { serverPid }: BenchRun): Promise<Observed> {
  const [server, asker, machine, ...actors] = await Promise.all([
    usageOf(serverPid),
    usageOf(process.pid),
    machineCoreSeconds(),
    ...pids.map(usageOf),
  ])
  return { server, asker, machine, actors, at: machineClock() }
}

function usedSince(before: Observed, after: Observed): Observed {
  return {
    server: usedBetween(before.server, after.server),
    asker: usedBetween(before.asker, after.asker),
    actors: after.actors.map((usage, i) => usedBetween(before.actors[i]!, usage)),
    machine: after.machine - before.machine,
    at: after.at - before.at,
  }
}

/** The log holds replies and one version. */
async function logBytesPerRecord({ url, tapCreds, run }: BenchRun): Promise<number> {
  const tap = await Tap.open(await accessWith(url, { creds: tapCreds }), run)
  const { bytes, records } = await tap.counts('generated').finally(() => tap.close())
  return bytes / records
}

function rowOf(settings: ScaleSettings, processes: number, ms: number, used: Observed, logBytes: number): ScaleRow {
  const { actors, rows, batchMs, batches } = settings
  const perSecond = (1000 * actors * rows * batches) / ms
  const seconds = used.at / 1000
  const completions = perSecond * seconds
  const actorSeconds = used.actors.reduce((sum, { coreSeconds }) => sum + coreSeconds, 0)
  const cores = {
    server: used.server.coreSeconds / seconds,
    actors: actorSeconds / seconds,
    asker: used.asker.coreSeconds / seconds,
  }
  const machine = used.machine / seconds
  const busiest = Math.max(...used.actors.map(({ coreSeconds }) => coreSeconds / seconds))
  const micros = (coreSeconds: number) => digits((1e6 * coreSeconds) / completions)
  return {
    row: 'scale',
    actors,
    processes,
    completionsPerSecond: digits(perSecond),
    share: digits((perSecond * batchMs) / 1000 / actors / rows),
    serverCores: digits(cores.server),
    actorCores: digits(cores.actors),
    askerCores: digits(cores.asker),
    otherCores: digits(Math.max(0, machine - cores.server - cores.actors - cores.asker)),
    saturated: saturated(machine, busiest, cores.asker),
    serverMicros: micros(used.server.coreSeconds),
    actorMicros: micros(actorSeconds),
    askerMicros: micros(used.asker.coreSeconds),
    logBytes: digits(logBytes / rows),
    serverReadBytes: digits(used.server.readBytes / completions),
    serverWrittenBytes: digits(used.server.writtenBytes / completions),
  }
}

const FULL = 0.95

/** A process of ours computes in one thread. */
function saturated(machine: number, busiestProcess: number, asker: number): string | null {
  if (machine >= FULL * availableParallelism()) return 'machine'
  if (asker >= FULL) return 'asker'
  return busiestProcess >= FULL ? 'actors' : null
}
