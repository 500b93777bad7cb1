/** The processes of one simulated run: started, struck, and started again as its plan says. */
import { Ports } from '../../actors/ports.ts'
import type { RunActor } from '../../actors/run-actor.ts'
import type { HeadEntry } from '../../bus/bus.ts'
import { CarriedBus } from '../../bus/carried-bus.ts'
import { parseEnvelope } from '../../bus/codec.ts'
import type { LogEntry } from '../../bus/memory/log.ts'
import { MemoryCarrier } from '../../bus/memory/memory-carrier.ts'
import { SharedMemory, type StoredValue } from '../../bus/memory/shared-memory.ts'
import { headSchema } from '../../bus/messages.ts'
import { HEAD_KEY } from '../../bus/subjects.ts'
import { startRole, ToyModel, type RoleName } from '../support/actors-world.ts'
import { rng } from '../support/rng.ts'
import { FaultyCarrier } from './faulty-carrier.ts'
import type { Change, Plan, Strike } from './plan.ts'
import { SimProcess } from './process.ts'
import { SimulatedClock, START_MS } from './simulated-clock.ts'
import { Weather, type Count } from './weather.ts'

interface Member {
  readonly process: SimProcess
  readonly carrier: MemoryCarrier
  readonly bus: CarriedBus
  readonly actor: RunActor
  /** Goes on with its deliveries after it hung. */
  resume: () => void
}

type Event = 'crashes' | 'freezes' | 'joins' | 'leaves' | 'redeliveries' | 'duplicates' | 'fenced' | 'takeovers'
export type Counts = Record<Event | Count, number>

export class SimWorld {
  readonly clock = new SimulatedClock()
  readonly net: SharedMemory
  /** Everything that happened, with its time. */
  readonly story: string[] = []
  /** Every move of the head, and who made it. */
  readonly heads: (HeadEntry & { readonly by: string })[] = []
  /** Machines that broke. */
  readonly broken: string[] = []
  /** When the last process that hung goes on. */
  awakeAt = 0
  readonly #plan: Plan
  readonly #weather: Weather
  readonly #random: () => number
  readonly #hex: () => string
  readonly #members = new Map<SimProcess, Member>()
  readonly #strikes: { readonly strike: Strike; seen: number }[]
  readonly #changes: Change[]
  readonly #events: Record<Event, number> = {
    crashes: 0,
    freezes: 0,
    joins: 0,
    leaves: 0,
    redeliveries: 0,
    duplicates: 0,
    fenced: 0,
    takeovers: 0,
  }
  #instances = 0
  #operations = 0

  constructor(plan: Plan) {
    this.#plan = plan
    const { ackWaitMs, dedupeWindowMs, deliveries } = plan
    this.net = new SharedMemory('simulation', { clock: this.clock, faults: deliveries, ackWaitMs, dedupeWindowMs })
    this.#random = rng(plan.seed + 1_000_003)
    this.#weather = new Weather(this.clock, plan.climate, rng(plan.seed + 2_000_003))
    this.#hex = hexOf(rng(plan.seed + 3_000_017))
    this.#strikes = plan.strikes.map((strike) => ({ strike, seen: 0 }))
    this.#changes = [...plan.changes]
    this.net.log.listen((entry) => this.#onRecord(entry))
    this.net.watchValues((key, value) => this.#onValue(key, value))
    for (const role of plan.cast) this.start(role)
  }

  get counts(): Counts {
    return { ...this.#events, ...this.#weather.counts }
  }

  get operations(): number {
    return this.#operations
  }

  /** Another process of a role. */
  start(role: RoleName): void {
    const by = `${role}.${++this.#instances}`
    const skewMs = Math.floor((2 * this.#random() - 1) * this.#plan.skewMs)
    const process = new SimProcess(role, by, this.clock, skewMs, (...args) => this.#onOperation(...args))
    const carrier = new MemoryCarrier(this.net, by)
    const { ackWaitMs } = this.#plan
    const onSight = (what: 'redelivery' | 'duplicate' | 'fenced') =>
      this.#events[what === 'redelivery' ? 'redeliveries' : what === 'duplicate' ? 'duplicates' : what]++
    const options = { process, weather: this.#weather, ackWaitMs, hex: this.#hex, onSight }
    const bus = new QuietBus(new FaultyCarrier(carrier, options))
    const onWarning = (message: string, error: unknown) => this.#tell(`${by} warns: ${message}: ${String(error)}`)
    const actor = startRole(role, new Ports(bus, { clock: process, onWarning }), this.#plan.size, {
      model: this.#model(process),
      election: { me: { instance: by, name: 'simulated', version: '1' }, preempt: this.#plan.preempt },
    })
    actor.done.catch((error: unknown) => {
      this.#tell(`${by} broke: ${String(error)}`)
      this.broken.push(`${by}: ${String(error)}`)
    })
    this.#members.set(process, { process, carrier, bus, actor, resume: () => {} })
    this.#tell(`${by} starts`)
  }

  #model(process: SimProcess): ToyModel {
    const model = new ToyModel(() => process.pause(1 + Math.floor(this.#random() * this.#plan.batchMs)))
    model.poison = ({ key }) => key === this.#plan.poison
    return model
  }

  #tell(line: string): void {
    this.story.push(`${((this.clock.now() - START_MS) / 1000).toFixed(3)} ${line}`)
  }

  #onRecord({ seq, event, id }: LogEntry): void {
    this.#tell(`record ${seq}: ${event} ${id}`)
  }

  #onValue(key: string, value: StoredValue): void {
    this.#tell(`${key} is at revision ${value.revision}`)
    if (key !== HEAD_KEY) return
    const { data, by } = parseEnvelope(value.bytes, key)
    const head = headSchema.parse(data)
    const before = this.heads.at(-1)
    if (before && before.head.epoch < head.epoch && before.by !== by) this.#events.takeovers++
    this.heads.push({ head, revision: value.revision, by })
  }

  #onOperation(process: SimProcess, operation: string, when: 'before' | 'after'): void {
    if (when === 'before') {
      this.#operations++
      this.#tell(`${process.by} ${operation}`)
      while (this.#changes.some(({ count }) => count <= this.#operations)) {
        const index = this.#changes.findIndex(({ count }) => count <= this.#operations)
        this.#change(this.#changes.splice(index, 1)[0]!)
      }
    }
    for (const planned of this.#strikes) {
      const { strike } = planned
      if (strike.when !== when) continue
      if (strike.role !== null && strike.role !== process.role) continue
      if (strike.operation !== null && strike.operation !== operation) continue
      if (++planned.seen === strike.count && process.state === 'running') this.#hit(process, strike)
    }
  }

  #hit(process: SimProcess, { what, ms }: Strike): void {
    if (what === 'freeze') this.#freeze(process, ms)
    else this.#kill(process, ms)
  }

  #kill(process: SimProcess, restartMs: number): void {
    const member = this.#members.get(process)
    if (!member || process.spared > 0) return
    this.#events.crashes++
    this.#tell(`${process.by} dies`)
    this.#members.delete(process)
    process.kill()
    member.carrier.crash()
    this.clock.setTimeout(() => this.start(process.role), restartMs)
  }

  #freeze(process: SimProcess, ms: number): void {
    const member = this.#members.get(process)
    if (!member || process.spared > 0) return
    this.#events.freezes++
    this.#tell(`${process.by} hangs`)
    process.freeze()
    const resume = member.carrier.hang()
    this.awakeAt = Math.max(this.awakeAt, this.clock.now() + ms)
    this.clock.setTimeout(() => {
      if (process.state !== 'frozen') return
      this.#tell(`${process.by} goes on`)
      resume()
      process.thaw()
    }, ms)
  }

  #change({ what, role, ms }: Change): void {
    switch (what) {
      case 'join':
        this.#events.joins++
        // Not inside the operation of another: it would run within the action of another's machine.
        return void this.clock.setTimeout(() => this.start(role), 1)
      case 'leave':
        return this.#leave(role, ms)
      case 'kill all':
        for (const process of [...this.#members.keys()]) this.#kill(process, 1 + Math.floor(this.#random() * ms))
    }
  }

  /** In order; the last of a role comes back, or another one for it. */
  #leave(role: RoleName, ms: number): void {
    const members = [...this.#members.values()].filter(({ process }) => process.role === role)
    const leaving = members.find(({ process }) => process.state === 'running' && process.spared === 0)
    if (!leaving) return
    const { process, actor, bus } = leaving
    this.#events.leaves++
    this.#tell(`${process.by} leaves`)
    if (members.length === 1) this.clock.setTimeout(() => this.start(role), ms)
    const gone = async () => {
      await actor.stop()
      await bus.close()
      this.#members.delete(process)
      this.#tell(`${process.by} has left`)
    }
    void gone()
  }
}

/** Live messages decide nothing and nobody here listens: a third of all encoding is saved. */
class QuietBus extends CarriedBus {
  override live(): void {}
}

/** 32 hex digits at a time. */
function hexOf(random: () => number): () => string {
  const eight = () =>
    Math.floor(random() * 2 ** 32)
      .toString(16)
      .padStart(8, '0')
  return () => eight() + eight() + eight() + eight()
}
