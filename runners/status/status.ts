/** How a run is: who works on it, with which version, what waits, how fast each device is. Listens, changes nothing. */
import { decode } from '../../bus/codec.ts'
import { headSchema, type EventData, type LiveData } from '../../bus/messages.ts'
import type { Queue } from '../../bus/nats/queues.ts'
import type { Tap } from '../../bus/nats/tap.ts'
import { within } from '../../bus/within.ts'
import { decodeHeard } from '../tap/decode.ts'

/** Every actor is heard within one heartbeat and a little more. */
const LISTEN_MS = 2500
/** Throughput is that of the last minute. */
const WINDOW_MS = 60_000

export interface ActorStatus {
  /** `role.host-pid-n` */
  readonly actor: string
  readonly state: string
  /** The version that it holds; null for actors that need none. */
  readonly version: number | null
  /** Versions behind the head. */
  readonly lag: number | null
  readonly inFlight: number
}

export interface DeviceStatus {
  /** The model actor. */
  readonly actor: string
  readonly device: string
  /** Sampled tokens per second, and tokens of gradients per second, of the last minute. */
  readonly sampledPerSecond: number
  readonly trainedPerSecond: number
  /** Share of the minute in which it computed. */
  readonly busy: number
}

export interface RunStatus {
  readonly run: string
  /** Committed; null before version 0. */
  readonly version: number | null
  /** Raised whenever another Optimizer takes over. */
  readonly epoch: number | null
  readonly actors: readonly ActorStatus[]
  readonly queues: readonly Queue[]
  readonly devices: readonly DeviceStatus[]
  readonly dead: number
  readonly alarms: number
  readonly log: { readonly records: number; readonly bytes: number }
}

/** Takes 2.5 s: an actor is known by its heartbeat. */
export async function runStatus(tap: Tap, signal: AbortSignal): Promise<RunStatus> {
  const [heard, queues, devices, dead, alarms] = await Promise.all([
    heartbeats(tap, signal),
    tap.queues(),
    throughput(tap, signal),
    tap.counts('dead'),
    tap.counts('alarm'),
  ])
  const head = await headOf(tap)
  const actors = [...heard].map(([actor, { state, weights, inFlight }]) => {
    const lag = weights === null || head === null ? null : head.version - weights
    return { actor, state, version: weights, lag, inFlight }
  })
  return {
    run: tap.run,
    version: head?.version ?? null,
    epoch: head?.epoch ?? null,
    actors: actors.toSorted((a, b) => (a.actor < b.actor ? -1 : 1)),
    queues,
    devices,
    dead: dead.events,
    alarms: alarms.events,
    log: { records: dead.records, bytes: dead.bytes },
  }
}

async function headOf(tap: Tap) {
  const bytes = await tap.value('head')
  return bytes && (await decode('head', headSchema, bytes, 'head', tap)).data
}

type Heartbeat = LiveData<'heartbeat'>

async function heartbeats(tap: Tap, signal: AbortSignal): Promise<Map<string, Heartbeat>> {
  const found = new Map<string, Heartbeat>()
  const listen = async (until: AbortSignal) => {
    const options = { filter: 'live.*.*.heartbeat', since: null, follow: true, signal: until }
    for await (const heard of tap.listen(options)) {
      const line = await decodeHeard(heard, tap)
      if (!('data' in line)) continue
      const [role, instance] = line.subject.split('.').slice(-3)
      found.set(`${role}.${instance}`, line.data as Heartbeat)
    }
  }
  await within(LISTEN_MS, listen, { signal })
  signal.throwIfAborted()
  return found
}

async function throughput(tap: Tap, signal: AbortSignal): Promise<DeviceStatus[]> {
  const since = { time: new Date(Date.now() - WINDOW_MS) }
  const sums = new Map<string, { device: string; sampled: number; trained: number; seconds: number }>()
  for (const event of ['generated', 'gradient'] as const) {
    for await (const heard of tap.listen({ filter: `log.${event}.*`, since, follow: false, signal })) {
      const line = await decodeHeard(heard, tap)
      if (!('data' in line)) continue
      const data = line.data as EventData<'generated' | 'gradient'>
      const sum = sums.get(line.by) ?? { device: data.device, sampled: 0, trained: 0, seconds: 0 }
      sums.set(line.by, sum)
      sum.seconds += data.seconds
      if ('tokens' in data) sum.trained += data.tokens
      else sum.sampled += data.completions.reduce((total, { tokens }) => total + tokens.length, 0)
    }
  }
  const rate = (value: number) => value / (WINDOW_MS / 1000)
  return [...sums].map(([actor, { device, sampled, trained, seconds }]) => {
    const [sampledPerSecond, trainedPerSecond] = [rate(sampled), rate(trained)]
    return { actor, device, sampledPerSecond, trainedPerSecond, busy: Math.min(1, rate(seconds)) }
  })
}
