/** One contract, two carriers, of which one keeps blobs and reads the log in two ways: what every user of a bus may rely on. */
import { randomBytes } from 'node:crypto'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { BlobError, type Bus, type Delivery, type LogRecord } from '../bus/bus.ts'
import { BusClosedError, MessageError, SettledError } from '../bus/errors.ts'
import { SCHEMA_VERSION, type Head } from '../bus/messages.ts'
import { startServer, type NatsServer } from '../bus/nats/server.ts'
import type { Net } from '../bus/net.ts'
import { memoryWorld, natsWorld, type World } from './helpers/bus-worlds.ts'

let server: NatsServer
let storeDir: string
let folders = 0

beforeAll(async () => {
  storeDir = await mkdtemp(join(tmpdir(), 'visplay-bus-'))
  server = await startServer({ storeDir })
})

afterAll(async () => {
  await server.stop()
  await rm(storeDir, { recursive: true })
})

const judge = (...groups: readonly string[]) => ({
  step: 1,
  groups: groups.map((group) => ({ group, questions: 'q', answers: null })),
})
const TRACE = `00-${'1'.repeat(32)}-${'2'.repeat(16)}-01`
const dropped = (reason: string) => ({ step: 1, group: 'g', reason })
const sha = `sha256-${'0'.repeat(64)}`
const head = (version: number): Head => ({
  version,
  parent: version === 0 ? null : version - 1,
  adapter: sha,
  optimizer: sha,
  epoch: 1,
  consumed: [],
})
const never = new AbortController().signal

/** The next `n` items, without ending the iteration. */
async function take<T>(iterator: AsyncIterator<T>, n: number): Promise<T[]> {
  const items: T[] = []
  while (items.length < n) {
    const { value, done } = await iterator.next()
    if (done) break
    items.push(value as T)
  }
  return items
}

const pulling = (bus: Bus, credit: number, signal = never) =>
  bus.pull('judge.groups', { credit, signal })[Symbol.asyncIterator]() as AsyncIterator<Delivery<'judge.groups'>>

describe.each([
  ['memory', () => memoryWorld()],
  ['nats', () => natsWorld(server)],
  [
    'nats, with blobs as files and one reader of the log',
    () => natsWorld(server, join(storeDir, `blobs-${++folders}`)),
  ],
])('bus on %s', (_, makeWorld) => {
  let world: World
  let net: Net
  let a: Bus
  let b: Bus

  beforeEach(async () => {
    world = makeWorld()
    net = await world.open()
    a = net.connect('questioner.1')
    b = (await world.open()).connect('judge.1')
  })

  afterEach(() => world.close())

  describe('tasks', () => {
    test('arrive in order, once, with their message', async () => {
      for (const id of ['g1', 'g2', 'g3', 'g1']) await a.publish('judge.groups', id, judge(id))
      const pull = pulling(b, 8)
      const deliveries = await take(pull, 3)
      expect(deliveries.map((d) => [d.id, d.deliveries, d.message.data.groups[0]!.group])).toEqual([
        ['g1', 1, 'g1'],
        ['g2', 1, 'g2'],
        ['g3', 1, 'g3'],
      ])
      expect(deliveries[0]!.message).toMatchObject({
        schema: 'judge.groups',
        version: SCHEMA_VERSION,
        by: 'questioner.1',
      })
      for (const delivery of deliveries) await delivery.ack()
      await a.publish('judge.groups', 'g2', judge('g2'))
      await a.publish('judge.groups', 'g4', judge('g4'))
      expect((await take(pull, 1))[0]!.id).toBe('g4')
    })

    test('go to one puller each, within its credit', async () => {
      const ids = Array.from({ length: 6 }, (_, i) => `g${i}`)
      const first = pulling(a, 2)
      const second = pulling(b, 2)
      await Promise.all(ids.map((id) => b.publish('judge.groups', id, judge(id))))
      const held = (await Promise.all([take(first, 2), take(second, 2)])).flat()
      expect(new Set(held.map((d) => d.id)).size).toBe(4)
      const rest: Delivery<'judge.groups'>[] = []
      for (const pull of [first, second]) void take(pull, 2).then((more) => rest.push(...more))
      await sleep(100)
      expect(rest).toEqual([])
      await Promise.all(held.map((delivery) => delivery.ack()))
      await a.publish('judge.groups', 'g6', judge('g6'))
      await a.publish('judge.groups', 'g7', judge('g7'))
      await expect.poll(() => rest.map((d) => d.id).sort()).toEqual(['g4', 'g5', 'g6', 'g7'])
      for (const delivery of rest) await delivery.ack()
    })

    test('come back at retry, after its delay, with a higher count', async () => {
      await a.publish('judge.groups', 'g1', judge('g1'))
      const pull = pulling(b, 1)
      ;(await take(pull, 1))[0]!.retry()
      const [second] = await take(pull, 1)
      expect(second!.deliveries).toBe(2)
      const before = performance.now()
      second!.retry(300)
      const [third] = await take(pull, 1)
      expect(third!.deliveries).toBe(3)
      expect(performance.now() - before).toBeGreaterThan(250)
      await third!.ack()
      expect(() => third!.retry()).toThrow(SettledError)
    })

    test('come back when their puller closes, unread ones too', async () => {
      for (const id of ['g1', 'g2']) await a.publish('judge.groups', id, judge(id))
      const pull = pulling(b, 2)
      const [held] = await take(pull, 1)
      await b.close()
      expect(await take(pull, 1)).toEqual([])
      await expect(held!.ack()).rejects.toThrow(BusClosedError)
      const started = performance.now()
      const again = await take(pulling(a, 2), 2)
      expect(again.map((d) => d.id).sort()).toEqual(['g1', 'g2'])
      expect(performance.now() - started).toBeLessThan(500)
    })

    test('come back when their puller stops before reading them', async () => {
      const stop = new AbortController()
      const pull = pulling(b, 3, stop.signal)
      for (const id of ['g1', 'g2', 'g3']) await a.publish('judge.groups', id, judge(id))
      const [held] = await take(pull, 1)
      await sleep(50)
      stop.abort()
      expect(await take(pull, 1)).toEqual([])
      await held!.ack()
      const rest = await take(pulling(a, 3), 2)
      expect(rest.map((d) => d.id).sort()).toEqual(['g2', 'g3'])
    })

    test('come back when their reader goes away before reading them', async () => {
      const pull = pulling(b, 3)
      for (const id of ['g1', 'g2', 'g3']) await a.publish('judge.groups', id, judge(id))
      const [held] = await take(pull, 1)
      await sleep(50)
      await pull.return?.()
      const rest = await take(pulling(a, 3), 2)
      expect(rest.map((d) => d.id).sort()).toEqual(['g2', 'g3'])
      await held!.ack()
    })

    test('come back when their process dies', async () => {
      await a.publish('judge.groups', 'g1', judge('g1'))
      await world.takeAndDie('judge.groups')
      const [delivery] = await take(pulling(b, 1), 1)
      expect(delivery).toMatchObject({ id: 'g1', deliveries: 2 })
      await delivery!.ack()
    })

    test('stay with a puller that takes longer than the acknowledgement time', async () => {
      await a.publish('judge.groups', 'g1', judge('g1'))
      const [held] = await take(pulling(b, 1), 1)
      expect(await Promise.race([take(pulling(a, 1), 1), sleep(1500, 'nothing')])).toBe('nothing')
      await held!.ack()
    })

    test('are dead after five deliveries, or when failed, and the log says why', async () => {
      for (const id of ['poison', 'wrong']) await a.publish('judge.groups', id, judge(id))
      const pull = pulling(b, 2)
      let deliveries = 0
      while (deliveries < 5) {
        const [delivery] = await take(pull, 1)
        if (delivery!.id === 'wrong') await delivery!.fail('no such group')
        else delivery!.retry(++deliveries === 1 ? 50 : 0)
      }
      const poison = await a.await('dead', 'judge-groups-poison', AbortSignal.timeout(3000))
      expect(poison.message.data).toMatchObject({ kind: 'judge.groups', id: 'poison', deliveries: 5 })
      const wrong = await a.find('dead', 'judge-groups-wrong')
      expect(wrong!.message.data).toMatchObject({ id: 'wrong', cause: 'no such group', deliveries: 1 })
      expect(await Promise.race([take(pull, 1), sleep(200, 'nothing')])).toBe('nothing')
    })

    test('of several items are divided when they fail, or are given back too often', async () => {
      await a.publish('judge.groups', 'many', judge('m1', 'm2', 'm3'), { traceparent: TRACE })
      await a.publish('judge.groups', 'few', judge('f1', 'f2'))
      const pull = pulling(b, 8)
      const [many, few] = await take(pull, 2)
      expect([many!.divisible, few!.divisible]).toEqual([true, true])
      await many!.fail('one of them cannot be judged')
      const alone = await take(pull, 3)
      expect(alone.map((d) => [d.id, d.deliveries, d.divisible, d.message.data])).toEqual([
        ['m1', 1, false, judge('m1')],
        ['m2', 1, false, judge('m2')],
        ['m3', 1, false, judge('m3')],
      ])
      expect(new Set(alone.map((d) => d.message.traceparent.split('-')[1]))).toEqual(new Set([TRACE.split('-')[1]]))
      await alone[1]!.fail('this one')
      await Promise.all([alone[0]!.ack(), alone[2]!.ack()])
      few!.retry()
      for (let delivery = 2; delivery <= 5; delivery++) {
        const [again] = await take(pull, 1)
        expect([again!.id, again!.deliveries]).toEqual(['few', delivery])
        again!.retry()
      }
      const rest = await take(pull, 2)
      expect(rest.map((d) => [d.id, d.deliveries])).toEqual([
        ['f1', 1],
        ['f2', 1],
      ])
      for (const delivery of rest) await delivery.ack()
      const dead: string[] = []
      for await (const { id } of a.read(['dead'], { follow: false, signal: AbortSignal.timeout(5000) })) dead.push(id)
      expect(dead).toEqual(['judge-groups-m2'])
    })

    test('that were given up can be retried, as they were, and given up again', async () => {
      await a.publish('judge.groups', 'sick', judge('sick'))
      const pull = pulling(b, 1)
      for (const attempt of [0, 1]) {
        const [delivery] = await take(pull, 1)
        expect([delivery!.deliveries, delivery!.message.data.groups[0]!.group]).toEqual([1, 'sick'])
        await delivery!.fail(`attempt ${attempt}`)
        await a.retry('judge.groups', 'sick')
      }
      const [well] = await take(pull, 1)
      await well!.ack()
      const story: string[] = []
      for await (const { event, id } of a.read(['dead', 'retried'], {
        follow: false,
        signal: AbortSignal.timeout(5000),
      }))
        story.push(`${event} ${id}`)
      const [first, second] = ['judge-groups-sick-r1', 'judge-groups-sick-r2']
      expect(story).toEqual(['dead judge-groups-sick', `retried ${first}`, `dead ${first}`, `retried ${second}`])
      await expect(a.retry('judge.groups', 'sick')).rejects.toThrow(/was not given up/)
      await expect(a.retry('judge.groups', 'unknown')).rejects.toThrow(/was not given up/)
    })

    test('that do not fit their schema are refused at the sender', async () => {
      const wrong = { ...judge('g1'), step: -1 }
      await expect(a.publish('judge.groups', 'g1', wrong)).rejects.toThrow(MessageError)
      await expect(a.publish('judge.groups', 'a.b', judge('g1'))).rejects.toThrow(/ids match/)
    })
  })

  describe('log', () => {
    test('keeps the first record of an id', async () => {
      expect(await a.append('dropped', 'd1', dropped('first'))).toEqual({ duplicate: false })
      expect(await b.append('dropped', 'd1', dropped('second'))).toEqual({ duplicate: true })
      expect((await b.find('dropped', 'd1'))!.message.data.reason).toBe('first')
      expect(await b.find('dropped', 'd2')).toBeNull()
    })

    test('has one winner among many at once', async () => {
      const results = await Promise.all(
        Array.from({ length: 20 }, (_, i) => (i % 2 ? a : b).append('dropped', 'd1', dropped(`${i}`))),
      )
      expect(results.filter((r) => !r.duplicate)).toHaveLength(1)
    })

    test('await returns a record appended before or after', async () => {
      await a.append('dropped', 'early', dropped('early'))
      expect((await b.await('dropped', 'early', never)).message.data.reason).toBe('early')
      const late = b.await('dropped', 'late', never)
      const many = Array.from({ length: 50 }, (_, i) => b.await('dropped', `m${i}`, never))
      await sleep(20)
      await a.append('dropped', 'late', dropped('late'))
      await Promise.all(many.map((_, i) => a.append('dropped', `m${i}`, dropped(`m${i}`))))
      expect((await late).message.data.reason).toBe('late')
      expect((await Promise.all(many)).map((r) => r.id)).toEqual(many.map((_, i) => `m${i}`))
    })

    test('await rejects when its signal aborts or its bus closes', async () => {
      await expect(b.await('dropped', 'never', AbortSignal.timeout(30))).rejects.toThrow(/timeout/)
      const waiting = b.await('dropped', 'never', never)
      waiting.catch(() => {})
      await sleep(20)
      await b.close()
      await expect(waiting).rejects.toThrow(BusClosedError)
      await expect(b.append('dropped', 'd', dropped(''))).rejects.toThrow(BusClosedError)
    })

    test('reads some events in order, from a sequence number', async () => {
      for (let i = 0; i < 4; i++) {
        await a.append('dropped', `d${i}`, dropped(`${i}`))
        await a.append('alarm', `a${i}`, { step: i, name: 'n', message: 'm', value: i })
      }
      await a.append('dropped', 'd0', dropped('again'))
      const all: LogRecord[] = []
      for await (const r of b.read(['dropped'], { follow: false, signal: never })) all.push(r)
      expect(all.map((r) => r.id)).toEqual(['d0', 'd1', 'd2', 'd3'])
      const rest: LogRecord[] = []
      const options = { follow: false, fromSeq: all[2]!.seq, signal: never }
      for await (const r of b.read(['dropped', 'alarm'], options)) rest.push(r)
      expect(rest.map((r) => r.id)).toEqual(['d2', 'a2', 'd3', 'a3'])
      expect(rest.map((r) => r.event)).toEqual(['dropped', 'alarm', 'dropped', 'alarm'])
      for await (const r of b.read(['step'], { follow: false, signal: never })) expect(r).toBeUndefined()
      for await (const r of b.read(['dropped'], { follow: false, fromSeq: 999, signal: never })) expect(r).toBeNull()
    })

    test('follows new records until the signal aborts', async () => {
      await a.append('dropped', 'd0', dropped('old'))
      const stop = new AbortController()
      const ids: string[] = []
      const reading = (async () => {
        for await (const r of b.read(['dropped'], { follow: true, signal: stop.signal })) {
          ids.push(r.id)
          if (ids.length === 3) stop.abort()
        }
      })()
      await a.append('dropped', 'd1', dropped('new'))
      await a.append('dropped', 'd2', dropped('new'))
      await reading
      expect(ids).toEqual(['d0', 'd1', 'd2'])
    })

    test('carries data of any size, and its trace', async () => {
      const parent = await a.append('dropped', 'p', dropped('parent')).then(() => b.find('dropped', 'p'))
      const reason = 'ä'.repeat(300_000)
      await a.append('dropped', 'big', dropped(reason), parent!.message)
      const big = await b.await('dropped', 'big', never)
      expect(big.message.data.reason === reason).toBe(true)
      const trace = (r: LogRecord) => r.message.traceparent.split('-')[1]
      expect(trace(big)).toBe(trace(parent!))
      expect(big.message.traceparent).not.toBe(parent!.message.traceparent)
    })
  })

  describe('head', () => {
    test('moves by compare-and-set, for one of many', async () => {
      expect(await a.getHead()).toBeNull()
      expect(await a.moveHead(head(0), null)).toBe(true)
      expect(await b.moveHead(head(0), null)).toBe(false)
      const { revision } = (await b.getHead())!
      const races = await Promise.all(
        Array.from({ length: 10 }, (_, i) => (i % 2 ? a : b).moveHead(head(i + 1), revision)),
      )
      expect(races.filter(Boolean)).toHaveLength(1)
      expect((await a.getHead())!.head.version).toBe(races.indexOf(true) + 1)
      expect(await a.moveHead(head(20), revision)).toBe(false)
    })

    test('is watched: at once, then every change', async () => {
      await a.moveHead(head(0), null)
      const stop = new AbortController()
      const versions: number[] = []
      const watching = (async () => {
        for await (const entry of b.watchHead(stop.signal)) {
          versions.push(entry.head.version)
          if (versions.length === 3) stop.abort()
        }
      })()
      for (const version of [1, 2]) {
        await sleep(20)
        await a.moveHead(head(version), (await a.getHead())!.revision)
      }
      await watching
      expect(versions).toEqual([0, 1, 2])
    })
  })

  describe('blobs and values', () => {
    test('blobs are named by their content and verified', async () => {
      const bytes = new Uint8Array(randomBytes(1_500_000))
      const name = await a.putBlob(bytes)
      expect(await a.putBlob(bytes)).toBe(name)
      expect(Buffer.compare(await b.getBlob(name), bytes)).toBe(0)
      ;(await b.getBlob(name))[0]! ^= 1
      expect(Buffer.compare(await b.getBlob(name), bytes)).toBe(0)
      // Views are of the same bytes, which a writer into a copy does not reach.
      const views = await Promise.all([b.viewBlob(name), b.viewBlob(name)])
      expect(views[0]).toBe(views[1])
      ;(await b.getBlob(name))[0]! ^= 1
      expect(Buffer.compare(views[0]!, bytes)).toBe(0)
      await expect(a.getBlob(sha)).rejects.toThrow(BlobError)
      await expect(a.viewBlob(sha)).rejects.toThrow(BlobError)
      await a.deleteBlob(name)
      await expect(a.getBlob(name)).rejects.toThrow(/missing/)
      expect(await a.putBlob(new Uint8Array())).toMatch(/^sha256-e3b0c442/)
    })

    test('a corrupt blob is an error, never data', async () => {
      const name = await a.putBlob(randomBytes(1000))
      await world.corrupt(name)
      await expect(b.getBlob(name)).rejects.toThrow(BlobError)
    })

    test('values are documents, last write wins', async () => {
      expect(await a.getValue('config')).toBeUndefined()
      await a.putValue('config', { a: [1, null, 'x'] })
      await b.putValue('config', { b: 2 })
      expect(await a.getValue('config')).toEqual({ b: 2 })
      await expect(a.putValue('head', {})).rejects.toThrow(/compare-and-set/)
      await expect(a.putValue('no spaces', {})).rejects.toThrow(MessageError)
    })
  })

  test('live messages reach who listens', async () => {
    const heard: [string, number | null][] = []
    const off = b.onLive('heartbeat', (from, m) => heard.push([from, m.data.weights]))
    b.onLive('progress', () => heard.push(['wrong kind', null]))
    await b.getHead()
    a.live('heartbeat', { state: 'busy', weights: 3, inFlight: 1 })
    await expect.poll(() => heard).toEqual([['questioner.1', 3]])
    off()
    a.live('heartbeat', { state: 'busy', weights: 4, inFlight: 1 })
    await sleep(50)
    expect(heard).toHaveLength(1)
  })
})
