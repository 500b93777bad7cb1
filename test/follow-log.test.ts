/** Followers that share one reader of the log: everything, in order, once, however slow they are and whenever they begin. */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setImmediate as turn } from 'node:timers/promises'
import { afterAll, beforeAll, expect, test } from 'vitest'
import type { Bus } from '../bus/bus.ts'
import { connectNet } from '../bus/nats/net.ts'
import { startServer, type NatsServer } from '../bus/nats/server.ts'
import type { Net } from '../bus/net.ts'

let dir: string
let server: NatsServer
beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'visplay-follow-'))
  server = await startServer({ storeDir: dir })
})
afterAll(async () => {
  await server.stop()
  await rm(dir, { recursive: true })
})

let nets = 0
async function withNet(job: (net: Net) => Promise<void>): Promise<void> {
  const net = await connectNet(server.access, `follow-${++nets}`, { readLogOnce: true })
  await job(net).finally(() => net.close())
}

const idOf = (i: number): string => `r${String(i).padStart(6, '0')}`

/** Appends records `from` to `to`, many at once, in some order; every tenth is of another event. */
async function append(bus: Bus, from: number, to: number): Promise<void> {
  const remark = (i: number) => ({ name: 'n', version: '1', about: idOf(i), data: { i } })
  const ids = Array.from({ length: to - from }, (_, i) => from + i)
  await Promise.all(
    ids.map((i) =>
      i % 10 === 0
        ? bus.append('dropped', idOf(i), { step: 1, group: 'g', reason: 'r' })
        : bus.append('remark', idOf(i), remark(i)),
    ),
  )
}

/** Reads remarks until there are `count`; `pause` is awaited after each. */
async function follow(bus: Bus, count: number, pause: (read: number) => unknown = () => {}): Promise<string[]> {
  const stop = new AbortController()
  const ids: string[] = []
  let before = 0
  for await (const { id, seq } of bus.read(['remark'], { follow: true, signal: stop.signal })) {
    expect(seq).toBeGreaterThan(before)
    before = seq
    ids.push(id)
    await pause(ids.length)
    if (ids.length === count) stop.abort()
  }
  return ids
}

const remarks = (count: number): string[] =>
  Array.from({ length: count }, (_, i) => i)
    .filter((i) => i % 10 !== 0)
    .map(idOf)

test('whoever begins while records are appended misses none and gets none twice', () =>
  withNet(async (net) => {
    const bus = net.connect('test.1')
    const all = 900
    const writing = (async () => {
      for (let i = 0; i < all; i += 100) await append(bus, i, i + 100)
    })()
    const followers: Promise<string[]>[] = []
    for (let i = 0; i < 8; i++) {
      followers.push(follow(net.connect(`test.f${i}`), (all * 9) / 10))
      await turn()
      await bus.getHead()
    }
    await writing
    const wanted = remarks(all)
    for (const ids of await Promise.all(followers)) expect(ids.toSorted()).toEqual(wanted)
  }))

test('a follower that falls behind further than is kept for it reads the rest from the server', () =>
  withNet(async (net) => {
    const bus = net.connect('test.1')
    await append(bus, 0, 10)
    let filled = () => {}
    const full = new Promise<void>((resolve) => (filled = resolve))
    const all = 3000
    const slow = follow(net.connect('test.slow'), (all * 9) / 10, (read) => (read === 9 ? full : null))
    const quick = follow(net.connect('test.quick'), (all * 9) / 10)
    await append(bus, 10, all)
    expect((await quick).toSorted()).toEqual(remarks(all))
    filled()
    expect(await slow).toEqual(await quick)
  }))
