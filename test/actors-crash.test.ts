/** The final version is the same whatever goes wrong on the way. */
import { afterEach, beforeAll, describe, expect, test } from 'vitest'
import type { Bus } from '../bus/bus.ts'
import { logOf, ROLES, World, type RoleName, type WorldOptions } from './support/actors-world.ts'

/** Enough for every role to have work at every moment. */
const SIZE: WorldOptions = { steps: 3, perStep: 4, images: 6, ackWaitMs: 40 }

let world: World | null = null
let expected: string[] = []

async function play(options: WorldOptions): Promise<World> {
  world = new World({ ...SIZE, ...options })
  return world.start().finished()
}

beforeAll(async () => {
  expected = await (await play({})).adapters()
  await world?.stop()
  expect(new Set(expected).size).toBe(4)
})

afterEach(async () => {
  await world?.stop()
  world = null
})

/** The lineage is gap-free, every group has one end, no group is trained twice. */
async function checkLog(played: World): Promise<void> {
  const log = await logOf(played.net)
  const versions = log.flatMap((r) => (r.event === 'version' ? [r.message.data] : []))
  expect(versions.map((v) => [v.weights, v.parent])).toEqual(versions.map((_, i) => [i, i === 0 ? null : i - 1]))
  const epochs = versions.map((v) => v.epoch)
  expect(epochs).toEqual(epochs.toSorted((a, b) => a - b))
  const consumed = versions.flatMap((v) => v.consumed)
  expect(new Set(consumed).size).toBe(consumed.length)
  const dropped = log.flatMap((r) => (r.event === 'dropped' ? [r.id] : []))
  expect(consumed.filter((group) => dropped.includes(group))).toEqual([])
  const judged = log.flatMap((r) => (r.event === 'verdict' && r.message.data.reasoner?.keep ? [r.id] : []))
  expect(judged.filter((group) => !consumed.includes(group) && !dropped.includes(group))).toEqual([])
  expect(log.filter((r) => r.event === 'dead')).toEqual([])
}

test('two undisturbed runs give the same versions', async () => {
  expect(await (await play({})).adapters()).toEqual(expected)
  await checkLog(world!)
})

test.each([1, 2, 3])('reordered, doubled and late deliveries change nothing (seed %i)', async (seed) => {
  const played = await play({ faults: { seed, duplicate: 0.1, reorder: 0.3, delayMs: 5, drop: 0.02 } })
  expect(await played.adapters()).toEqual(expected)
  await checkLog(played)
})

test('more actors of every role, joining while the run goes on, change nothing', async () => {
  world = new World(SIZE).start()
  for (const role of ['model', 'judge', 'reasoner', 'questioner', 'model', 'source'] as const) {
    await new Promise((resolve) => setTimeout(resolve, 10))
    world.startAnother(role)
  }
  await world.finished()
  expect(await world.adapters()).toEqual(expected)
  await checkLog(world)
})

interface Failpoint {
  readonly role: RoleName
  readonly method: 'append' | 'publish' | 'moveHead' | 'putBlob' | 'await' | 'getBlob'
  readonly when: 'before' | 'after'
  /** The how manieth call dies. */
  readonly call: number
}

/** A process that dies around one of its calls to the bus; the promise resolves at that moment. */
function failpoint(point: Failpoint): { wrap: (role: string, bus: Bus) => Bus; died: Promise<void> } {
  let calls = 0
  let die = () => {}
  const died = new Promise<void>((resolve) => (die = resolve))
  const dead = () => {
    die()
    return new Promise<never>(() => {})
  }
  const wrap = (role: string, bus: Bus): Bus => {
    if (role !== point.role) return bus
    return new Proxy(bus, {
      get(target, key) {
        const method = Reflect.get(target, key) as unknown
        if (typeof method !== 'function') return method
        const call = (...args: unknown[]) => (method as (...a: unknown[]) => unknown).apply(target, args)
        if (key !== point.method) return call
        return (...args: unknown[]) => {
          if (++calls !== point.call) return call(...args)
          return point.when === 'before' ? dead() : Promise.resolve(call(...args)).then(dead)
        }
      },
    })
  }
  return { wrap, died }
}

const POINTS: readonly Failpoint[] = [
  { role: 'optimizer', method: 'putBlob', when: 'after', call: 1 },
  { role: 'optimizer', method: 'moveHead', when: 'before', call: 1 },
  { role: 'optimizer', method: 'moveHead', when: 'after', call: 1 },
  { role: 'optimizer', method: 'moveHead', when: 'before', call: 2 },
  { role: 'optimizer', method: 'moveHead', when: 'after', call: 2 },
  { role: 'optimizer', method: 'await', when: 'before', call: 2 },
  { role: 'optimizer', method: 'await', when: 'after', call: 1 },
  { role: 'optimizer', method: 'append', when: 'before', call: 3 },
  { role: 'optimizer', method: 'append', when: 'after', call: 7 },
  { role: 'questioner', method: 'publish', when: 'before', call: 2 },
  { role: 'questioner', method: 'append', when: 'before', call: 3 },
  { role: 'questioner', method: 'append', when: 'after', call: 3 },
  { role: 'questioner', method: 'publish', when: 'after', call: 8 },
  { role: 'reasoner', method: 'publish', when: 'before', call: 4 },
  { role: 'reasoner', method: 'append', when: 'before', call: 2 },
  { role: 'reasoner', method: 'append', when: 'after', call: 2 },
  { role: 'judge', method: 'append', when: 'before', call: 5 },
  { role: 'judge', method: 'append', when: 'after', call: 5 },
  { role: 'source', method: 'publish', when: 'before', call: 3 },
  { role: 'source', method: 'publish', when: 'after', call: 6 },
  { role: 'model', method: 'append', when: 'before', call: 3 },
  { role: 'model', method: 'append', when: 'after', call: 3 },
  { role: 'model', method: 'getBlob', when: 'before', call: 2 },
  { role: 'model', method: 'putBlob', when: 'after', call: 1 },
]

describe('a process dies and comes back', () => {
  test.each(POINTS)('$role, $when call $call of $method', async (point) => {
    const { wrap, died } = failpoint(point)
    world = new World({ ...SIZE, wrap }).start()
    await died
    await world.crashAndRestart(point.role)
    await world.finished()
    expect(await world.adapters()).toEqual(expected)
    await checkLog(world)
  })

  test('all of them, again and again', async () => {
    world = new World({ ...SIZE, steps: 3 }).start()
    const order = [...ROLES, ...ROLES.toReversed()]
    for (const role of order) {
      await new Promise((resolve) => setTimeout(resolve, 15))
      await world.crashAndRestart(role)
    }
    await world.finished()
    expect(await world.adapters()).toEqual(expected)
    await checkLog(world)
  })
})
