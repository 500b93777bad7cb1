/**
 * How long a new version takes to every model actor: from the move of the head to the swap of each, on the way that
 * actors of a run go (watch the head, fetch the adapter, verify its sha256, load it). Every actor holds a request that
 * only the new version may serve, as at the beginning of a step.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import type { Bus } from '../../../bus/bus.ts'
import { accessWith } from '../../../bus/nats/access.ts'
import { Tap } from '../../../bus/nats/tap.ts'
import { digits, median } from '../measure.ts'
import { withRun } from './bench-server.ts'
import { commitVersion, prepareVersion } from './commit-version.ts'
import type { Fleet } from './fleet.ts'
import { plainTransferMs } from './loopback.ts'
import { machineClock } from './protocol.ts'
import { Requests } from './requests.ts'

export interface BroadcastSettings {
  readonly actors: number
  readonly adapterBytes: number
  /** Versions that count, after one that warms up. */
  readonly versions: number
  readonly signal: AbortSignal
  readonly onNote: (line: string) => void
}

/** Times in milliseconds; p50 and p99 over every swap of every actor, `max` is the slowest of all. */
export interface BroadcastRow {
  readonly row: 'broadcast'
  readonly actors: number
  readonly processes: number
  readonly adapterBytes: number
  readonly versions: number
  readonly p50: number
  readonly p99: number
  readonly max: number
  /** Median over versions of the time until the last actor has swapped. */
  readonly lastP50: number
  /** Storing the adapter before the head moves. */
  readonly storeP50: number
  /** Plain sockets bring the adapter to every process once, in this time; and as often as there are actors, in that. */
  readonly boundPerProcess: number
  readonly boundPerActor: number
}

export function measureBroadcast(fleet: Fleet, settings: BroadcastSettings): Promise<BroadcastRow> {
  const { actors, adapterBytes, versions, signal, onNote } = settings
  return withRun('broadcast', 'server', async (bench) => {
    const { run, url, workerCreds: creds, net } = bench
    const owner = net.connect('bench.owner')
    await commitVersion(owner, 0, adapterBytes)
    await fleet.startActors({ url, creds, run, actors, batchMs: 0, tokens: 1, rows: 1, adapterBytes, credit: 1 })
    const requests = await Requests.open(net, onNote)
    const tap = await Tap.open(await accessWith(url, { creds: bench.tapCreds }), run)
    const bounds: { actor: number; process: number }[] = []
    const swaps: number[][] = []
    const stores: number[] = []
    try {
      for (let version = 1; version <= versions + 1; version++) {
        signal.throwIfAborted()
        onNote(`version ${version} of ${versions + 1}: ${actors} actors in ${fleet.size} processes`)
        const swapped = await swap(owner, requests, tap, fleet, { ...settings, version })
        if (version === 1) continue
        swaps.push(swapped.afterMs)
        stores.push(swapped.storeMs)
        const process = await plainTransferMs(fleet, fleet.size * adapterBytes)
        bounds.push({ process, actor: await plainTransferMs(fleet, actors * adapterBytes) })
      }
    } finally {
      await tap.close()
      await requests.close()
      await fleet.stopActors()
    }
    const all = swaps.flat().toSorted((a, b) => a - b)
    return {
      row: 'broadcast',
      actors,
      processes: fleet.size,
      adapterBytes,
      versions,
      p50: digits(quantile(all, 0.5)),
      p99: digits(quantile(all, 0.99)),
      max: digits(all.at(-1)!),
      lastP50: digits(median(swaps.map((times) => Math.max(...times)))),
      storeP50: digits(median(stores)),
      boundPerProcess: digits(median(bounds.map((bound) => bound.process))),
      boundPerActor: digits(median(bounds.map((bound) => bound.actor))),
    }
  })
}

/** Commits one version; the times from the move of its head to the swap of every actor. */
async function swap(
  owner: Bus,
  requests: Requests,
  tap: Tap,
  fleet: Fleet,
  { actors, adapterBytes, version, signal }: BroadcastSettings & { readonly version: number },
): Promise<{ storeMs: number; afterMs: number[] }> {
  const begin = machineClock()
  const move = await prepareVersion(owner, version, adapterBytes)
  const storeMs = machineClock() - begin
  const times: number[] = []
  const forget = fleet.onSwapped((at) => times.push(at))
  const replies = Array.from({ length: actors }, () => requests.ask({ rows: 1, tokens: 1, minWeights: version }))
  await allHeld(tap, actors, signal)
  const moved = machineClock()
  await move()
  await Promise.all(replies)
  // Swaps are told by the processes, replies by the log: the last of either may be behind.
  while (times.length < actors) await sleep(1)
  forget()
  return { storeMs, afterMs: times.map((at) => at - moved) }
}

/** Every actor holds one request: it takes no more. */
async function allHeld(tap: Tap, actors: number, signal: AbortSignal): Promise<void> {
  for (;;) {
    const queue = (await tap.queues()).find(({ kind }) => kind === 'model.generate')
    if (queue?.waiting === 0 && queue.inFlight === actors) return
    await sleep(10)
    signal.throwIfAborted()
  }
}

const quantile = (sorted: readonly number[], q: number): number => sorted[Math.ceil(q * sorted.length) - 1]!
