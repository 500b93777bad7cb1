/**
 * A whole small run in simulated time, with real actors on the in-memory bus and a stand-in model, under misfortunes that
 * a seed decides. Whatever goes wrong: the run ends, every invariant of actors/audit.ts holds, and every version is that
 * of the undisturbed run. The same seed tells the same story.
 */
import { createHash } from 'node:crypto'
import { Audit, INVARIANTS, type AuditRecord, type Invariant, type Violation } from '../../actors/audit.ts'
import { stepId, versionId } from '../../actors/ids.ts'
import type { EventData } from '../../bus/messages.ts'
import type { LogEntry } from '../../bus/memory/log.ts'
import { planOf, undisturbed, type Plan } from './plan.ts'
import { SimWorld, type Counts } from './world.ts'
import { START_MS } from './simulated-clock.ts'

/** What a simulation asks for beyond the invariants of every run. */
export const DEMANDS = {
  ended: 'the run comes to its end',
  'same-versions': 'every version is that of the undisturbed run',
  'given-up': 'no task is given up that could be done',
  whole: 'no machine breaks',
} as const
export type Demand = keyof typeof DEMANDS
/** All that is checked. */
export const AUDITED = { ...INVARIANTS, ...DEMANDS } as const

export interface Broken {
  readonly invariant: Invariant | Demand
  readonly about: string
  readonly message: string
}

export interface Story {
  readonly seed: number
  readonly plan: Plan
  /** Of everything that happened, times and bytes included. */
  readonly hash: string
  readonly lines: readonly string[]
  readonly violations: readonly Broken[]
  readonly counts: Counts & { readonly dead: number; readonly operations: number }
  /** Simulated. */
  readonly seconds: number
  /** Adapters of the versions, in order. */
  readonly versions: readonly string[]
}

/** The counts of several simulations. */
export function addCounts(sum: Story['counts'] | null, more: Story['counts']): Story['counts'] {
  if (!sum) return more
  const total = { ...more }
  for (const name of Object.keys(sum) as (keyof Story['counts'])[])
    Object.assign(total, { [name]: sum[name] + more[name] })
  return total
}

/** A run takes seconds; one that hangs or crashes takes minutes. */
const LONGEST_MS = 20 * 60_000
/** What is left of a run that has ended: late deliveries, processes that wake up. */
const AFTERMATH_MS = 8_000

/** Plays the run of a seed and checks it. */
export async function simulate(seed: number): Promise<Story> {
  const plan = planOf(seed)
  return judge(await play(plan), await expected(plan.poison))
}

type Played = Omit<Story, 'violations'> & {
  readonly world: SimWorld
  readonly records: readonly AuditRecord[]
  readonly ended: boolean
}

async function play(plan: Plan): Promise<Played> {
  const world = new SimWorld(plan)
  const ended = await toTheEnd(world, plan)
  const entries = world.net.log.from(1)
  const records = entries.map(recordOf)
  const hash = createHash('sha256').update(world.story.join('\n'))
  for (const { bytes } of entries) hash.update(bytes)
  return {
    seed: plan.seed,
    plan,
    hash: hash.digest('hex'),
    lines: world.story,
    counts: {
      ...world.counts,
      dead: records.filter(({ event }) => event === 'dead').length,
      operations: world.operations,
    },
    seconds: (world.clock.now() - START_MS) / 1000,
    versions: versionsOf(records).map(({ adapter }) => adapter),
    world,
    records,
    ended,
  }
}

/** Lets time pass whenever nothing else can happen. False: the run did not end in time. */
async function toTheEnd(world: SimWorld, { size }: Plan): Promise<boolean> {
  const { clock, net } = world
  const last = stepId(size.steps!)
  let until = START_MS + LONGEST_MS
  let ended = false
  while (clock.now() < until) {
    await new Promise(setImmediate)
    if (!ended && net.log.find('step', last)) {
      ended = true
      until = Math.max(clock.now(), world.awakeAt) + AFTERMATH_MS
    }
    if (!clock.advance()) break
  }
  return ended
}

/** What the actors have written is valid: the bus checks it by its schema. */
function recordOf({ seq, event, id, bytes }: LogEntry): AuditRecord {
  return { seq, event, id, message: JSON.parse(text.decode(bytes)) as unknown } as AuditRecord
}

const text = new TextDecoder()

const versionsOf = (records: readonly AuditRecord[]): EventData<'version'>[] =>
  records.flatMap((record) => (record.event === 'version' ? [record.message.data] : []))

const known = new Map<string | null, Promise<Played>>()

/** The undisturbed run. */
function expected(poison: string | null): Promise<Played> {
  let run = known.get(poison)
  if (!run) known.set(poison, (run = play(undisturbed(poison))))
  return run
}

async function judge(played: Played, calm: Played): Promise<Story> {
  const { world, records, ended, ...story } = played
  const audit = new Audit({ trains: { questioner: true, reasoner: true } })
  for (const record of records) audit.apply(record)
  const violations: Broken[] = [
    ...audit.finish(world.heads),
    ...(await blobsOf(played)),
    ...versionsAgainst(played, calm),
  ]
  if (!ended) violations.push({ invariant: 'ended', about: 'run', message: `it goes on after ${story.seconds} s` })
  for (const message of world.broken) violations.push({ invariant: 'whole', about: 'actor', message })
  return { ...story, violations }
}

function versionsAgainst({ plan, versions, records }: Played, calm: Played): Broken[] {
  const dead = records.flatMap((record) => (record.event === 'dead' ? [record.message.data] : []))
  const needless = dead
    .filter(
      ({ id, cause }) => plan.poison === null || (id !== plan.poison && !cause.includes(`${plan.poison} was given up`)),
    )
    .map(({ id, cause }): Broken => ({ invariant: 'given-up', about: id, message: cause }))
  if (plan.size.maxLag !== 0) return needless
  const other = versions.flatMap((adapter, i): Broken[] => {
    const due = calm.versions[i]
    return adapter === due
      ? []
      : [{ invariant: 'same-versions', about: versionId(i), message: `${adapter} instead of ${due}` }]
  })
  return [...needless, ...other.slice(0, 1)]
}

/** What is there is whole, and that of the newest version is there. */
async function blobsOf({ world }: Played): Promise<Violation[]> {
  const newest = world.heads.at(-1)
  if (!newest) return []
  const { version, adapter, optimizer } = newest.head
  const lost: Violation[] = []
  for (const blob of [adapter, optimizer]) {
    await world.net.blobs.getBlob(blob).catch((error: unknown) => {
      lost.push({ invariant: 'blobs', about: versionId(version), message: String(error) })
    })
  }
  return lost
}
