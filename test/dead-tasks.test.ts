/** Who waits for a request learns that it was given up, whatever happens to the connection meanwhile. */
import { expect, test } from 'vitest'
import { DeadTaskError } from '../actors/dead-tasks.ts'
import { Ports } from '../actors/ports.ts'
import type { Bus } from '../bus/bus.ts'
import { CarriedBus } from '../bus/carried-bus.ts'
import { createMemoryNet } from '../bus/memory.ts'
import { MemoryCarrier } from '../bus/memory/memory-carrier.ts'
import { SharedMemory } from '../bus/memory/shared-memory.ts'

test('a reader of given-up tasks that breaks begins again, although no other request follows', async () => {
  const net = createMemoryNet('dead')
  const bus = net.connect('test.1')
  let away = 1
  const read: Bus['read'] = (events, options) => {
    if (away-- > 0) throw new Error('away')
    return bus.read(events, options)
  }
  const wall = new Proxy(bus, {
    get: (target, key) => (key === 'read' ? read : (Reflect.get(target, key) as () => unknown).bind?.(target)),
  })
  const ports = new Ports(wall)
  const image = await bus.putBlob(new Uint8Array(1))
  const task = { image, prompt: 'p', completions: [[1]], minWeights: 0 }
  const signal = AbortSignal.timeout(10_000)
  const waiting = ports.request('model.logprobs', 'a', task, { signal, again: false })
  const dead = { kind: 'model.logprobs', id: 'a', cause: 'it is too hard', deliveries: 5 }
  await bus.append('dead', 'model-logprobs-a', dead)
  await expect(waiting).rejects.toThrow(DeadTaskError)
  await ports.close()
  await net.close()
})

test('a task whose end cannot be told comes back, and dies then', async () => {
  const carrier = new MemoryCarrier(new SharedMemory('dead', {}), 'judge.1')
  const find = carrier.find.bind(carrier)
  let away = 1
  carrier.find = (event, id) => (away-- > 0 ? Promise.reject(new Error('away')) : find(event, id))
  const bus = new CarriedBus(carrier)
  const signal = AbortSignal.timeout(10_000)
  await bus.publish('judge.groups', 'g', { step: 1, groups: [{ group: 'g', questions: 'q', answers: null }] })
  const deliveries: number[] = []
  for await (const delivery of bus.pull('judge.groups', { credit: 1, signal })) {
    deliveries.push(delivery.deliveries)
    const told = await delivery.fail('it is too hard').then(
      () => true,
      () => false,
    )
    if (told) break
  }
  expect(deliveries).toEqual([1, 2])
  expect((await bus.find('dead', 'judge-groups-g'))?.message.data.cause).toBe('it is too hard')
  await bus.close()
})
