/** The audit finds nothing in an honest log, and each invariant in a log that breaks it. */
import { randomBytes } from 'node:crypto'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { Audit, INVARIANTS, type AuditRecord, type Invariant, type Violation } from '../actors/audit.ts'
import type { HeadEntry } from '../bus/bus.ts'
import type { EventData, EventName } from '../bus/messages.ts'
import { blobFolder } from '../bus/nats/blob-files.ts'
import { connectNats } from '../bus/nats/connect.ts'
import { connectNet } from '../bus/nats/net.ts'
import { subjects } from '../bus/subjects.ts'
import { openTap } from '../runners/tap/open.ts'
import { readLog, type AnyRecord } from '../runners/tap/records.ts'
import { serverOf } from '../runners/tap/server-of.ts'
import { logOf, World } from './support/actors-world.ts'
import { program } from './support/program.ts'
import { SMALL_LEARNING as SMALL } from './support/small-run.ts'

interface Told {
  records: AuditRecord[]
  heads: HeadEntry[]
}

function audited({ records, heads }: Told): readonly Violation[] {
  const audit = new Audit({ trains: { questioner: true, reasoner: true } })
  for (const record of records) audit.apply(record)
  return audit.finish(heads)
}

let honest: Told
beforeAll(async () => {
  const world = new World({ steps: 3 })
  const heads: HeadEntry[] = []
  const watch = async () => {
    for await (const entry of world.net.connect('test.heads').watchHead(new AbortController().signal)) heads.push(entry)
  }
  void watch()
  await world.start().finished()
  honest = { records: await logOf(world.net), heads }
  await world.stop()
})

/** The first record of an event, or that of an id, in a log that may be altered. */
function dataOf<E extends EventName>({ records }: Told, event: E, id?: string): EventData<E> {
  const found = records.find((record) => record.event === event && (id === undefined || record.id === id))
  return found!.message.data as EventData<E>
}
const without = (told: Told, event: EventName, id?: string) => {
  const index = told.records.findIndex((record) => record.event === event && (id === undefined || record.id === id))
  return told.records.splice(index, 1)[0]!
}
/** A group of answers that version 1 has trained. */
const trained = (told: Told) => dataOf(told, 'version', 'v1').consumed.find((group) => group.includes('-q'))!

const FORGERIES: readonly (readonly [Invariant, string, (told: Told) => void])[] = [
  [
    'one-record',
    'a verdict twice',
    (t) => t.records.push({ ...t.records.find((r) => r.event === 'verdict')!, seq: 999 }),
  ],
  ['one-end', 'an image nobody asked about', (t) => without(t, 'questions')],
  ['one-end', 'a question nobody answered', (t) => without(t, 'answers')],
  ['one-end', 'a group nobody judged', (t) => without(t, 'verdict', trained(t))],
  ['consumed-once', 'a group in two versions', (t) => dataOf(t, 'version', 'v2').consumed.push(trained(t))],
  [
    'consumed-once',
    'a group trained and dropped',
    (t) => {
      const data = { step: 1, group: trained(t), reason: 'forged' }
      const like = t.records.find((r) => r.event === 'version')!
      t.records.push({ ...like, seq: 999, event: 'dropped', id: data.group, message: { ...like.message, data } })
    },
  ],
  [
    'nothing-left-out',
    'a judged group without an end',
    (t) => {
      const { consumed } = dataOf(t, 'version', 'v1')
      consumed.splice(consumed.indexOf(trained(t)), 1)
    },
  ],
  ['nothing-left-out', 'a trained group that nobody judged', (t) => dataOf(t, 'version', 'v1').consumed.push('s1-i9')],
  ['lineage', 'a version that is missing', (t) => without(t, 'version', 'v1')],
  ['lineage', 'another parent', (t) => (dataOf(t, 'version', 'v2').parent = 0)],
  ['lineage', 'an epoch that falls', (t) => (dataOf(t, 'version', 'v1').epoch = 7)],
  ['lineage', 'a step that nobody recorded', (t) => without(t, 'step', 's1')],
  ['head', 'a head that goes back', (t) => t.heads.push(t.heads[1]!)],
  ['head', 'an older epoch', (t) => (t.heads[1] = { ...t.heads[1]!, head: { ...t.heads[1]!.head, epoch: 9 } })],
  ['head', 'a version left out', (t) => t.heads.splice(1, 1)],
  ['head', 'other weights than those recorded', (t) => (dataOf(t, 'version', 'v1').adapter = t.heads[0]!.head.adapter)],
  ['head', 'a head that was never recorded', (t) => without(t, 'version', 'v2')],
  ['loaded-in-order', 'weights that were never committed', (t) => (dataOf(t, 'generated').weights = 77)],
  [
    'loaded-in-order',
    'an actor that goes back',
    (t) => {
      t.records.findLast((r) => r.event === 'generated')!.message.data = {
        ...dataOf(t, 'generated'),
        weights: 0,
      }
    },
  ],
]

/** They need the bytes, the blobs or the settings of a run. */
const IN_A_RUN = ['readable', 'update-follows', 'blobs'] as const

describe('Audit', () => {
  test('finds nothing in the log of an undisturbed run', () => {
    expect(honest.heads.map(({ head }) => head.version)).toEqual([0, 1, 2, 3])
    expect(audited(honest)).toEqual([])
  })

  test.each(FORGERIES)('%s: %s', (invariant, _, forge) => {
    const told = structuredClone(honest)
    forge(told)
    const violations = audited(told)
    expect(violations.map((violation) => violation.invariant)).toContain(invariant)
    expect(violations.every(({ about, message }) => about.length > 0 && message.length > 0)).toBe(true)
  })

  test('each invariant is broken somewhere here, those of a real run below', () => {
    const broken = new Set<string>([...FORGERIES.map(([invariant]) => invariant), ...IN_A_RUN])
    expect([...broken].toSorted()).toEqual(Object.keys(INVARIANTS).toSorted())
  })
})

describe('visplay audit', () => {
  let dir: string
  let run: string
  beforeAll(async () => {
    dir = await mkdtemp(join(tmpdir(), 'visplay-audit-'))
    run = join(dir, 'run')
    const { code, stderr } = await program(['evolve', '--json', '--steps', '2', '--out', run, ...SMALL])
    expect(code, stderr).toBe(0)
  })
  afterAll(() => rm(dir, { recursive: true, force: true }))

  async function audit(): Promise<{ code: number | null; lines: Record<string, unknown>[] }> {
    const { code, stdout } = await program(['audit', run, '--json'])
    const lines = stdout.split('\n').slice(0, -1)
    return { code, lines: lines.map((line) => JSON.parse(line) as Record<string, unknown>) }
  }

  async function recordsOf(): Promise<AnyRecord[]> {
    const { tap, close } = await openTap(undefined, run)
    const options = { to: Infinity, signal: AbortSignal.timeout(60_000), onProblem: () => {} }
    const records: AnyRecord[] = []
    for await (const record of readLog(tap, options)) records.push(record)
    await close()
    return records
  }

  test('proves an honest run', async () => {
    const { code, lines } = await audit()
    expect(lines).toEqual([expect.objectContaining({ event: 'done', ok: true, violations: 0, version: 2, epoch: 1 })])
    expect(code).toBe(0)
  })

  test('names what somebody has forged: a record, an update, a blob', async () => {
    const records = await recordsOf()
    const versions = records.flatMap((r) => (r.event === 'version' ? [r.message.data] : []))
    const group = versions.flatMap(({ consumed }) => consumed)[0]!
    const server = await serverOf(run, 'owner')
    const net = await connectNet(server.access, server.run)
    const bus = net.connect('forger.1')
    await bus.append('dropped', group, { step: 1, group, reason: 'forged' })
    // Step 2 once more as step 3, with verdicts that no gradient was computed for.
    for (const { event, id, message } of records) {
      if (event !== 'questions' && event !== 'answers' && event !== 'verdict') continue
      if (message.data.step !== 2) continue
      const text = JSON.stringify({ ...message.data, ...('weights' in message.data && { weights: 2 }) })
      const data = { ...(JSON.parse(text.replaceAll('s2-', 's3-')) as EventData<typeof event>), step: 3 }
      await bus.append(event, id.replace('s2-', 's3-'), data)
    }
    await bus.append('step', 's3', { step: 3, weights: 3, metrics: {}, groups: [], seconds: 1 })
    await net.close()
    const connection = await connectNats({ access: server.access, name: 'forger' })
    await writeFile(join(blobFolder(join(run, 'nats')), versions.at(-1)!.adapter), randomBytes(10))
    connection.publish(subjects.log(server.run, 'remark', 'forged'), 'no message')
    await connection.flush()
    await connection.close()
    await server.stop()
    const { code, lines } = await audit()
    const found = new Set(lines.filter((line) => line['event'] === 'violation').map((line) => line['invariant']))
    for (const invariant of ['consumed-once', ...IN_A_RUN]) expect(found).toContain(invariant)
    expect(lines.at(-1)).toMatchObject({ event: 'done', ok: false })
    expect(code).toBe(1)
  })
})
