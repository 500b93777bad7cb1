/** The Optimizer and the Source: lineage, fences, retention, steps without an update. */
import { afterEach, describe, expect, test } from 'vitest'
import { ImageOrder } from '../actors/permutation.ts'
import { isDue } from '../actors/evaluator.ts'
import { decodeWeights, encodeWeights } from '../actors/weights-codec.ts'
import fc from 'fast-check'
import { SimulatedClock } from 'xstate'
import { EXPIRE_MS } from '../actors/lease.ts'
import { f32 } from '../models/tensor.ts'
import { logOf, ToyModel, World, type WorldOptions } from './support/actors-world.ts'

let world: World
afterEach(() => world.stop())

async function play(options: WorldOptions): Promise<World> {
  world = new World(options).start()
  return world.finished()
}

describe('Optimizer', () => {
  test('micro-batches of any size give one sum in one order: the same bits on every run', async () => {
    const runs = []
    for (let i = 0; i < 2; i++) {
      runs.push(await (await play({ microBatchImages: 1 })).adapters())
      await world.stop()
    }
    expect(runs[0]).toEqual(runs[1])
  })

  test('a second Optimizer takes over; the first finds out and commits nothing more', async () => {
    world = new World({ steps: 4 }).start(['model', 'optimizer', 'judge', 'reasoner', 'questioner'])
    const first = world.actors.get('optimizer')!.actor
    await expect.poll(() => first.state()).toBe('collecting')
    world.startAnother('optimizer')
    const second = world.actors.get('optimizer')!.actor
    await expect.poll(() => second.state()).toBe('collecting')
    await expect.poll(() => first.state()).toBe('standby')
    world.startOne('source')
    await Promise.all([first.done, second.done])
    expect([first.state(), second.state()]).toEqual(['finished', 'finished'])
    const versions = (await logOf(world.net)).flatMap((r) => (r.event === 'version' ? [r.message.data] : []))
    expect(versions.map((v) => v.weights)).toEqual([0, 1, 2, 3, 4])
    expect(versions.slice(1).map((v) => v.epoch)).toEqual([2, 2, 2, 2])
  })

  test('one that stands by waits while the leader lives, and takes over when it is killed, with the same versions', async () => {
    const alone = await (await play({ steps: 3, preempt: false })).adapters()
    await world.stop()
    const clock = new SimulatedClock()
    world = new World({ steps: 3, preempt: false, clock }).start(['optimizer'])
    world.startAnother('optimizer')
    const pass = async (ms: number) => {
      for (let done = 0; done < ms; done += 250) {
        clock.increment(250)
        for (let i = 0; i < 20; i++) await new Promise(setImmediate)
      }
    }
    await pass(3 * EXPIRE_MS)
    expect(world.actors.get('optimizer')!.actor.state()).toBe('standby')
    await world.crashFirst('optimizer')
    world.start(['model', 'judge', 'reasoner', 'questioner', 'source'])
    await pass(2 * EXPIRE_MS)
    await expect.poll(async () => (await pass(1000), (await world.adapters()).length), { timeout: 60_000 }).toBe(4)
    expect(await world.adapters()).toEqual(alone)
    const versions = (await logOf(world.net)).flatMap((r) => (r.event === 'version' ? [r.message.data] : []))
    expect(versions.map((v) => v.epoch)).toEqual([1, 2, 2, 2])
  })

  test('only the blobs of kept versions stay', async () => {
    await play({ steps: 5 })
    const bus = world.net.connect('test.1')
    await expect.poll(() => world.actors.get('optimizer')!.actor.state()).toBe('finished')
    const log = await logOf(world.net)
    const exists = (name: string) =>
      bus.getBlob(name).then(
        () => true,
        () => false,
      )
    const versions = log.flatMap((r) => (r.event === 'version' ? [r.message.data] : []))
    // keepVersions 2, and the base's weights for good.
    expect(await Promise.all(versions.map((v) => exists(v.adapter)))).toEqual([true, false, false, false, true, true])
    expect(await Promise.all(versions.map((v) => exists(v.optimizer)))).toEqual([
      false,
      false,
      false,
      false,
      true,
      true,
    ])
    const gradients = log.flatMap((r) => (r.event === 'gradient' ? [r.message.data.gradient] : []))
    expect(gradients.length).toBeGreaterThan(4)
    expect((await Promise.all(gradients.map(exists))).some(Boolean)).toBe(false)
  })

  test('a step without a trainable group commits the same weights, and the run goes on', async () => {
    // One completion per group: no group has variance.
    await play({ questions: 1, answers: 2, perStep: 1, images: 1, steps: 3, seed: 5 })
    const log = await logOf(world.net)
    const steps = log.flatMap((r) => (r.event === 'step' ? [r.message.data] : []))
    expect(steps.map((s) => s.weights)).toEqual([1, 2, 3])
    const adapters = await world.adapters()
    steps.forEach((step, i) => {
      if (step.groups.length === 0) expect(adapters[i + 1]).toBe(adapters[i])
    })
    expect(steps.some((step) => step.groups.length === 0)).toBe(true)
  })

  test.each([
    { loss: 1, reason: 'the gradient is not finite' },
    { loss: NaN, reason: 'LostCauseError: the loss of' },
  ])('a gradient that is not finite changes nothing and is said (loss $loss)', async ({ loss, reason }) => {
    world = new World({ steps: 1 })
    const gradients = { w: f32(new Float32Array(16).fill(NaN), [16]) }
    const metrics = { token_count: 1, clip_low_min: NaN }
    world.model.policyGradient = () => Promise.resolve({ gradients, loss, metrics, tokens: 1 })
    await world.start().finished()
    const adapters = await world.adapters()
    expect(adapters[1]).toBe(adapters[0])
    const reasons = (await logOf(world.net)).flatMap((r) => (r.event === 'dropped' ? [r.message.data.reason] : []))
    expect(reasons.join()).toContain(reason)
  })

  test('a lost update is not half an update: a later step starts from what was committed', async () => {
    await play({ steps: 2 })
    const bus = world.net.connect('test.1')
    const { head } = (await bus.getHead())!
    expect(head.version).toBe(2)
    const weights = decodeWeights(await bus.getBlob(head.adapter), head.adapter)
    expect([...weights.w!.data]).not.toEqual([...new ToyModel().trainable().w!.data])
  })
})

describe('Source', () => {
  test('runs ahead of the weights by the permitted lag only', async () => {
    await play({ steps: 4, maxLag: 1 })
    const log = await logOf(world.net)
    for (const record of log) {
      if (record.event !== 'questions' && record.event !== 'answers') continue
      const { step, weights } = record.message.data
      expect(weights).toBeGreaterThanOrEqual(Math.max(0, step - 2))
      expect(weights).toBeLessThan(step)
    }
  })

  test('every image once per epoch, another order in each, the same for a seed', () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 40 }), fc.nat(), (count, seed) => {
        const order = new ImageOrder(count, seed)
        const epochs = [0, 1].map((e) => Array.from({ length: count }, (_, i) => order.at(e * count + i)))
        for (const epoch of epochs) expect(epoch.toSorted((a, b) => a - b)).toEqual([...Array(count).keys()])
        expect(new ImageOrder(count, seed).at(count)).toBe(epochs[1]![0])
        if (count > 8) expect(epochs[0]).not.toEqual(epochs[1])
      }),
    )
  })
})

describe('codecs', () => {
  test('weights survive, in equal bytes whatever the order of their names', () => {
    const a = f32([1, 2, 3], [3])
    const b = f32([4], [])
    const bytes = encodeWeights({ a, b })
    expect(encodeWeights({ b, a })).toEqual(bytes)
    expect(decodeWeights(bytes, 'x')).toEqual({ a, b })
    const shifted = new Uint8Array(bytes.length + 1)
    shifted.set(bytes, 1)
    expect(decodeWeights(shifted.subarray(1), 'x')).toEqual({ a, b })
    expect(() => decodeWeights(bytes.subarray(0, bytes.length - 1), 'sha256-x')).toThrow(/sha256-x/)
  })

  test('the versions that are measured', () => {
    const due = Array.from({ length: 26 }, (_, v) => v).filter((v) => isDue(v, { every: 10, steps: 25 }))
    expect(due).toEqual([0, 10, 20, 25])
  })
})
