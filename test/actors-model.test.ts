/** The model actor: versions, batches, failures. */
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { encodeMicroBatch, type MicroBatch } from '../actors/micro-batch.ts'
import { modelActor } from '../actors/model-actor.ts'
import type { Ports } from '../actors/ports.ts'
import { encodeWeights } from '../actors/weights-codec.ts'
import { BlobError, type Bus } from '../bus/bus.ts'
import type { Task } from '../bus/messages.ts'
import { f32, type Weights } from '../models/tensor.ts'
import { ToyModel, World } from './support/actors-world.ts'

const SIZE = 16
const weightsOf = (value: number): Weights => ({ w: f32(new Float32Array(SIZE).fill(value), [SIZE]) })
const signal = () => AbortSignal.timeout(5_000)

let world: World
let bus: Bus
let ports: Ports
let model: ToyModel
let image: string

beforeEach(async () => {
  world = new World({ ackWaitMs: 50 })
  bus = world.net.connect('test.1')
  ports = world.ports('test', bus)
  model = new ToyModel()
  image = await bus.putBlob(new TextEncoder().encode('image'))
})
afterEach(() => world.stop())

/** Commits a version whose weights are all `value`. */
async function commit(version: number, value = version, adapter?: string): Promise<string> {
  const blob = adapter ?? (await bus.putBlob(encodeWeights(weightsOf(value))))
  const blobs = { adapter: blob, optimizer: blob }
  const head = { version, parent: version === 0 ? null : version - 1, ...blobs, epoch: 1, consumed: [] }
  await bus.moveHead(head, (await bus.getHead())?.revision ?? null)
  await bus.append('version', `v${version}`, {
    weights: version,
    parent: head.parent,
    ...blobs,
    epoch: 1,
    consumed: [],
  })
  return blob
}

function start(credit = 64, wrap: (own: Bus) => Bus = (own) => own) {
  const by = `model.${Math.random().toString(36).slice(2)}`
  const own = world.net.connect(by)
  const ownPorts = world.ports('model', wrap(own))
  const actor = modelActor(ownPorts, { model, windowMs: 20, credit })
  return { actor, bus: own, ports: ownPorts, by }
}

/** A bus over which one blob arrives corrupt. */
const damaging =
  (blob: string) =>
  (own: Bus): Bus =>
    new Proxy(own, {
      get(target, key) {
        const method = Reflect.get(target, key) as unknown
        if (typeof method !== 'function') return method
        const call = (...args: unknown[]) => (method as (...a: unknown[]) => unknown).apply(target, args)
        if (key !== 'viewBlob') return call
        return (name: string) => (name === blob ? Promise.reject(new BlobError('corrupt on its way')) : call(name))
      },
    })

const request = (over: Partial<Task<'model.generate'>> = {}): Task<'model.generate'> => ({
  image,
  prompt: 'ask',
  samples: 2,
  maxNewTokens: 8,
  temperature: 1,
  seed: 1,
  minWeights: 0,
  cohort: null,
  weights: null,
  ...over,
})

const ask = (id: string, over: Partial<Task<'model.generate'>> = {}) =>
  ports.request('model.generate', id, request(over), { signal: signal(), again: false })

/** The same bus with another way to put blobs. */
const withPut = (own: Bus, putBlob: Bus['putBlob']): Bus =>
  new Proxy(own, {
    get: (target, key) => {
      if (key === 'putBlob') return putBlob
      const value: unknown = Reflect.get(target, key)
      return typeof value === 'function' ? (value.bind(target) as unknown) : value
    },
  })

const NOTHING = encodeMicroBatch({ loss: {}, groups: [] } as unknown as MicroBatch)

describe('model actor', () => {
  test('serves the newest version and stamps it; waits for the version that a request needs', async () => {
    await commit(0)
    const { actor } = start()
    expect((await ask('a')).message.data).toMatchObject({ weights: 0, device: 'test', promptTokens: 4 })
    const early = ask('b', { minWeights: 1 })
    expect(await Promise.race([early, new Promise((resolve) => setTimeout(() => resolve('waits'), 100))])).toBe('waits')
    await commit(1)
    expect((await early).message.data.weights).toBe(1)
    expect(model.trainable().w!.data[0]).toBe(1)
    await actor.stop()
  })

  test('a pinned request gets its version, the next one the newest again', async () => {
    for (const version of [0, 1, 2]) await commit(version)
    const { actor } = start()
    expect((await ask('a')).message.data.weights).toBe(2)
    expect((await ask('b', { weights: 1 })).message.data.weights).toBe(1)
    expect(model.trainable().w!.data[0]).toBe(1)
    expect((await ask('c')).message.data.weights).toBe(2)
    expect(model.trainable().w!.data[0]).toBe(2)
    await actor.stop()
  })

  test('a complete cohort is one batch', async () => {
    await commit(0)
    const { actor } = start()
    const cohort = { id: 'c', size: 5 }
    await Promise.all([0, 1, 2, 3, 4].map((i) => ask(`r${i}`, { cohort })))
    expect(model.batches).toEqual([5])
    await actor.stop()
  })

  test('an incomplete cohort is served after the window', async () => {
    await commit(0)
    const { actor } = start()
    await Promise.all([0, 1].map((i) => ask(`r${i}`, { cohort: { id: 'c', size: 3 } })))
    expect(model.batches).toEqual([2])
    await actor.stop()
  })

  test('what a request says depends on its id alone, not on its batch', async () => {
    await commit(0)
    const { actor } = start()
    const texts = async (ids: string[]) => {
      const replies = await Promise.all(ids.map((id) => ask(id)))
      return replies.map((r) => r.message.data.completions.map((c) => c.text))
    }
    const [together] = await texts(['x', 'y', 'z'])
    const again = new ToyModel()
    again.load(weightsOf(0))
    const [alone] = await again.generate([
      { key: 'x', image: null, prompt: 'ask', samples: 2, maxNewTokens: 8, temperature: 1, seed: 1 },
    ])
    expect(together).toEqual(alone!.samples.map((s) => s.text))
    await actor.stop()
  })

  test('many prompts in one request come back in their order', async () => {
    await commit(0)
    const { actor } = start()
    const also = ['q1', 'q2'].map((text) => ({ image, text }))
    const { completions } = (await ask('bulk', { also })).message.data
    expect(completions.map((c) => c.id)).toEqual([0, 1, 2, 3, 4, 5].map((i) => `bulk-${i}`))
    expect(model.batches).toEqual([3])
    await actor.stop()
  })

  test('a request that breaks the model takes no other with it, and is given up in the end', async () => {
    await commit(0)
    model.poison = ({ key }) => key === 'bad'
    const { actor } = start()
    const cohort = { id: 'c', size: 3 }
    const bad = ports.request('model.generate', 'bad', request({ cohort }), {
      signal: AbortSignal.timeout(60_000),
      again: false,
    })
    const good = await Promise.all(['g1', 'g2'].map((id) => ask(id, { cohort })))
    expect(good.map((r) => r.message.data.completions.length)).toEqual([2, 2])
    await expect(bad).rejects.toThrow(/given up.*poisoned by bad/)
    await actor.stop()
  }, 30_000)

  test('prompts with keys of their own say what they say alone, wherever they stand', async () => {
    await commit(0)
    const { actor } = start()
    const alone = await Promise.all(['x', 'y', 'z'].map((key) => ask(key)))
    const also = [
      { key: 'z', image, text: 'ask' },
      { key: 'y', image, text: 'ask' },
    ]
    const together = await ask('all', { key: 'x', also })
    const completions = (reply: typeof together) => reply.message.data.completions
    expect(completions(together)).toEqual([alone[0], alone[2], alone[1]].flatMap((reply) => completions(reply!)))
    await actor.stop()
  })

  test('a rollout of several prompts that breaks the model is told so at once; other bulk work is tried again', async () => {
    await commit(0)
    const { actor, ports: own } = start()
    let tries = 0
    model.poison = ({ key }) => key === 'bad' && ++tries > 0
    const also = [{ key: 'bad', image, text: 'ask' }]
    const rollout = (await ask('rollout', { rollout: true, also })).message.data
    expect(rollout).toMatchObject({ completions: [], error: 'Error: poisoned by bad' })
    expect(tries).toBe(1)
    await expect(
      ports.sample('rollout', also, request({ rollout: true }), { signal: signal(), again: true }),
    ).rejects.toThrow('could not sample rollout: Error: poisoned by bad')
    model.poison = ({ key }) => key === 'bad' && ++tries < 4
    expect((await ask('bulk', { also })).message.data.completions).toHaveLength(4)
    expect(tries).toBe(4)
    await actor.stop()
    await own.close()
  })

  test('a delivery that was answered before is acknowledged, not computed', async () => {
    await commit(0)
    const first = start()
    await ask('a')
    await first.actor.stop()
    const computed = model.generated
    // Answered, yet never acknowledged: its process died in between.
    const dying = world.net.connect('model.dying')
    await bus.publish('model.generate', 'b', request())
    for await (const delivery of dying.pull('model.generate', { credit: 1, signal: signal() })) {
      const { data } = (await bus.find('generated', 'a'))!.message
      await bus.append('generated', delivery.id, data)
      break
    }
    await dying.close()
    const second = start()
    await expect.poll(async () => (await bus.find('generated', 'b')) !== null && second.actor.state()).toBe('idle')
    expect(model.generated).toBe(computed)
    await second.actor.stop()
  })

  test('a request stays with it while the log cannot be asked whether it was answered', async () => {
    await commit(0)
    await bus.publish('model.generate', 'a', request())
    const dying = world.net.connect('model.dying')
    for await (const delivery of dying.pull('model.generate', { credit: 1, signal: signal() })) {
      delivery.retry()
      break
    }
    let away = 1
    const { actor } = start(64, (own) => {
      const find: Bus['find'] = (event, id) => (away-- > 0 ? Promise.reject(new Error('away')) : own.find(event, id))
      return new Proxy(own, {
        get: (target, key) => (key === 'find' ? find : (Reflect.get(target, key) as () => unknown).bind?.(target)),
      })
    })
    await bus.await('generated', 'a', signal())
    expect(world.warnings.join()).toMatch(/serving requests: away/)
    await actor.stop()
  })

  test('a gradient of a past version is let go, though its weights are gone', async () => {
    const old = await commit(0)
    await commit(1)
    await bus.deleteBlob(old)
    await bus.publish('model.gradient', 'late', { step: 1, index: 0, batch: old, weights: 0 })
    const { actor, ports: own } = start()
    const acked: string[] = []
    const ack = own.ack.bind(own)
    own.ack = (key) => {
      acked.push(key)
      ack(key)
    }
    await expect.poll(() => acked.join()).toMatch(/^late\./)
    expect(world.warnings).toEqual([])
    await actor.stop()
  })

  test('a corrupt version is never served: it waits for a sound one', async () => {
    await commit(0)
    const { actor } = start()
    await ask('a')
    const broken = await bus.putBlob(new TextEncoder().encode('no weights'))
    await commit(1, 1, broken)
    const waiting = ask('b')
    await expect.poll(() => world.warnings.join()).toMatch(/serving requests/)
    expect(model.trainable().w!.data[0]).toBe(0)
    await commit(2)
    expect((await waiting).message.data.weights).toBe(2)
    await actor.stop()
  })

  test('whose copy of a version is corrupt hands its work to others, and it is said once', async () => {
    await commit(0)
    const sound = await bus.putBlob(encodeWeights(weightsOf(1)))
    const unlucky = start(64, damaging(sound))
    await ask('a')
    await commit(1, 1, sound)
    const waiting = ask('b', { minWeights: 1 })
    await expect.poll(() => unlucky.actor.state()).toMatch(/^broken/)
    const lucky = start()
    const { message } = await waiting
    expect([message.by, message.data.weights]).toEqual([lucky.by, 1])
    const alarms = []
    for await (const { id } of bus.read(['alarm'], { follow: false, signal: new AbortController().signal }))
      alarms.push(id)
    expect(alarms).toEqual(['bad-weights-v1'])
    await Promise.all([unlucky.actor.stop(), lucky.actor.stop()])
  })

  test('weights that do not fit the model are not served either', async () => {
    await commit(0)
    const { actor } = start()
    const other = await bus.putBlob(encodeWeights({ w: f32([1, 2], [2]) }))
    await commit(1, 1, other)
    const waiting = ask('b', { minWeights: 1 })
    await expect.poll(() => world.warnings.join()).toMatch(/weights of another model/)
    await commit(2)
    expect((await waiting).message.data.weights).toBe(2)
    await actor.stop()
  })

  test('two model actors share the work; each answer comes once', async () => {
    await commit(0)
    const actors = [start(4), start(4)]
    const ids = Array.from({ length: 24 }, (_, i) => `r${i}`)
    const replies = await Promise.all(ids.map((id) => ask(id, { cohort: { id: 'c', size: 24 } })))
    expect(replies.map((r) => r.id)).toEqual(ids)
    expect(model.generated).toBe(24)
    await Promise.all(actors.map(({ actor }) => actor.stop()))
  })

  test('logprobs are scored under the newest version', async () => {
    await commit(0)
    const { actor } = start()
    const task = { image, prompt: 'p', completions: [[1, 2], [3]], minWeights: 0 }
    const reply = await ports.request('model.logprobs', 'l', task, { signal: signal(), again: false })
    expect(reply.message.data).toMatchObject({ weights: 0, logprobs: [[-0.001, -0.002], [-0.003]] })
    await actor.stop()
  })

  test('computes the next gradient while one is stored, and no more than that', async () => {
    await commit(0)
    const own = world.net.connect('model.slow')
    let open = () => {}
    const gate = new Promise<void>((resolve) => (open = resolve))
    const slow = withPut(own, (bytes) => gate.then(() => own.putBlob(bytes)))
    const actor = modelActor(world.ports('model', slow), { model })
    const batch = await bus.putBlob(NOTHING)
    const replies = [0, 1, 2, 3].map((index) => {
      const task = { step: 1, index, batch, weights: 0 }
      return ports.request('model.gradient', `m${index}`, task, { signal: signal(), again: false })
    })
    await expect.poll(() => model.gradients).toBe(2)
    await new Promise((resolve) => setTimeout(resolve, 50))
    expect(model.gradients).toBe(2)
    open()
    const indices = (await Promise.all(replies)).map((r) => r.message.data.index)
    expect(indices).toEqual([0, 1, 2, 3])
    expect(model.gradients).toBe(4)
    await actor.stop()
  })

  test('a gradient that cannot be stored goes back to the queue', async () => {
    await commit(0)
    const own = world.net.connect('model.full')
    let fails = 1
    const full = withPut(own, (bytes) => (fails-- > 0 ? Promise.reject(new Error('no room')) : own.putBlob(bytes)))
    const actor = modelActor(world.ports('model', full), { model })
    const batch = await bus.putBlob(NOTHING)
    const task = { step: 1, index: 0, batch, weights: 0 }
    const reply = await ports.request('model.gradient', 'm', task, { signal: signal(), again: false })
    expect(reply.message.data.weights).toBe(0)
    expect(world.warnings.join()).toMatch(/no room/)
    expect(model.gradients).toBe(2)
    await actor.stop()
  })
})
