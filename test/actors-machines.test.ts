/** Machines alone: no bus, a simulated clock. */
import { describe, expect, test } from 'vitest'
import { SimulatedClock, assign, createActor, fromCallback, fromPromise, waitFor, type EventObject } from 'xstate'
import { modelMachine } from '../actors/model-actor.ts'
import { optimizerMachine } from '../actors/optimizer.ts'
import { questionTask } from '../actors/questioner.ts'
import { sourceMachine } from '../actors/source.ts'
import { workerMachine } from '../actors/worker.ts'
import type { Batch } from '../actors/batcher.ts'
import type { HeadMoved } from '../actors/ports.ts'
import type { Commit } from '../actors/training-job.ts'

const silent = fromCallback<EventObject>(() => {})
const head = (version: number): HeadMoved => {
  const blob = `sha256-${'0'.repeat(64)}`
  const entry = { version, parent: null, adapter: blob, optimizer: blob, epoch: 1, consumed: [] }
  return { type: 'head', entry: { head: entry, revision: version } }
}

describe('model machine', () => {
  const batch: Batch = { kind: 'model.generate', weights: null, keys: ['a'] }

  test('waits for the rest of a cohort, then flushes', async () => {
    const clock = new SimulatedClock()
    const served: Batch[] = []
    const machine = modelMachine.provide({
      actors: {
        pull: silent,
        watchHead: silent,
        serve: fromPromise(({ input }) => Promise.resolve(void served.push(input.batch))),
      },
      actions: { plan: assign({ batch: (_, { idle }) => (idle && served.length === 0 ? batch : null) }) },
      delays: { window: 50 },
    })
    const actor = createActor(machine, { clock }).start()
    const state = () => actor.getSnapshot().value
    actor.send(head(0))
    expect(state()).toBe('gathering')
    clock.increment(1)
    expect(state()).toBe('lingering')
    clock.increment(49)
    expect([state(), served]).toEqual(['lingering', []])
    clock.increment(1)
    expect(state()).toBe('serving')
    await waitFor(actor, (snapshot) => snapshot.value === 'lingering')
    expect(served).toEqual([batch])
    expect(JSON.parse(JSON.stringify(actor.getSnapshot().context))).toEqual(actor.getSnapshot().context)
    actor.send({ type: 'stop' })
    expect(actor.getSnapshot().status).toBe('done')
  })

  test('weights that do not load are tried again after a second; until then it takes nothing and holds nothing', async () => {
    const clock = new SimulatedClock()
    let tries = 0
    const seen: string[] = []
    const load = () => (++tries < 3 ? Promise.reject(new Error('corrupt')) : Promise.resolve())
    const machine = modelMachine.provide({
      actors: {
        pull: fromCallback<EventObject>(({ receive, sendBack }) =>
          receive(({ type }) => {
            seen.push(type)
            if (type === 'pause') sendBack({ type: 'paused' })
          }),
        ),
        watchHead: silent,
        serve: fromPromise(load),
        mend: fromPromise(load),
      },
      actions: {
        plan: assign({ batch: () => (tries === 0 ? batch : null) }),
        release: () => seen.push('release'),
        alarm: () => seen.push('alarm'),
      },
    })
    const actor = createActor(machine, { clock }).start()
    actor.send(head(0))
    clock.increment(1)
    await waitFor(actor, (snapshot) => snapshot.matches({ broken: 'waiting' }))
    clock.increment(999)
    expect([actor.getSnapshot().value, tries]).toEqual([{ broken: 'waiting' }, 1])
    clock.increment(1)
    await waitFor(actor, (snapshot) => snapshot.matches({ broken: 'waiting' }) && tries === 2)
    clock.increment(1000)
    await waitFor(actor, (snapshot) => snapshot.value === 'lingering')
    expect(tries).toBe(3)
    expect(seen).toEqual(['alarm', 'pause', 'release', 'alarm', 'pause', 'release', 'resume'])
  })
})

describe('source machine', () => {
  const play = (maxLag: number) => {
    const issued: [number, number][] = []
    const machine = sourceMachine.provide({
      actors: {
        watchHead: silent,
        issue: fromPromise(({ input }) => {
          issued.push([input.from, input.to])
          return Promise.resolve(input.to)
        }),
      },
    })
    const actor = createActor(machine, { input: { steps: 5, maxLag } }).start()
    return { actor, issued, settle: () => waitFor(actor, (s) => s.value !== 'issuing') }
  }

  test('on policy: one step at a time, after the version before it', async () => {
    const { actor, issued, settle } = play(0)
    expect(issued).toEqual([])
    for (const version of [0, 1, 1, 3, 5]) {
      actor.send(head(version))
      await settle()
    }
    expect(issued).toEqual([
      [1, 1],
      [2, 2],
      [4, 4],
    ])
    expect(actor.getSnapshot().value).toBe('finished')
  })

  test('with lag: as far ahead as permitted', async () => {
    const { actor, issued, settle } = play(2)
    actor.send(head(0))
    await settle()
    actor.send(head(2))
    await settle()
    expect(issued).toEqual([
      [1, 3],
      [4, 5],
    ])
  })
})

describe('optimizer machine', () => {
  test('begins again from the committed version after a failure, later each time', async () => {
    const clock = new SimulatedClock()
    let updates = 0
    const record: string[] = []
    const note = (name: string) =>
      fromPromise(async ({ input }: { input: { step: number } }): Promise<void> => {
        record.push(`${name} ${input.step}`)
        return Promise.resolve()
      })
    const machine = optimizerMachine.provide({
      actors: {
        follow: fromPromise((): Promise<void> => new Promise(() => {})),
        restore: fromPromise(() => {
          record.push('restore')
          return Promise.resolve({ version: 0, epoch: record.length })
        }),
        collect: note('collect'),
        update: fromPromise(() => (++updates < 3 ? Promise.reject(new Error('lost')) : Promise.resolve())),
        commit: fromPromise((): Promise<Commit> => Promise.resolve('committed')),
        record: note('record'),
      },
    })
    const actor = createActor(machine, { clock, input: { steps: 1 } }).start()
    expect(actor.getSnapshot().value).toBe('standby')
    actor.send({ type: 'lead' })
    for (const wait of [500, 1000]) {
      await waitFor(actor, (snapshot) => snapshot.value === 'failed')
      clock.increment(wait - 1)
      expect(actor.getSnapshot().value).toBe('failed')
      clock.increment(1)
    }
    await waitFor(actor, (snapshot) => snapshot.value === 'finished')
    const round = ['restore', 'collect 1']
    expect(record).toEqual([...round, ...round, ...round, 'record 1'])
  })
})

describe('worker machine', () => {
  test('acknowledges what is done and gives back what failed', () => {
    const settled: string[] = []
    const machine = workerMachine.provide({
      actors: { crew: silent, follow: fromPromise(() => Promise.resolve()) },
      actions: {
        ack: (_, { key }) => settled.push(`ack ${key}`),
        giveBack: (_, { key }) => settled.push(`give back ${key}`),
      },
    })
    const actor = createActor(machine).start()
    actor.send({ type: 'task.begun' })
    actor.send({ type: 'task.begun' })
    actor.send({ type: 'task.done', key: 'a' })
    actor.send({ type: 'task.failed', key: 'b', error: new Error('x') })
    expect(settled).toEqual(['ack a', 'give back b'])
    expect(actor.getSnapshot().context).toEqual({ inFlight: 0, done: 1, failed: 1 })
  })
})

test('a machine without its ports says which one is missing', async () => {
  const traceparent = `00-${'0'.repeat(32)}-${'0'.repeat(16)}-01`
  const data = { step: 1, expects: 1, minWeights: 0, images: [{ id: 's1-i0', index: 0, image: '', name: '' }] }
  const task = { key: 'k', kind: 'questioner.images' as const, id: 's1-i0', deliveries: 1, traceparent, data }
  const actor = createActor(questionTask, { input: { task } })
  const failed = new Promise((resolve) => actor.subscribe({ error: resolve }))
  actor.start()
  expect(String(await failed)).toContain('port "ask" is not provided')
})
