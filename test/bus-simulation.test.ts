/** A run in simulated time under seeded misfortune: every task ends in exactly one record, and a seed is a story. */
import { setImmediate as turn } from 'node:timers/promises'
import { SimulatedClock } from 'xstate'
import { expect, test } from 'vitest'
import type { Bus, LogRecord } from '../bus/bus.ts'
import { createMemoryNet, type MemoryNet } from '../bus/memory.ts'

const TASKS = 24

/** Works until its bus is gone: the record first, then the acknowledgement, and a record that is there is not made again. */
async function work(bus: Bus, story: string[]): Promise<void> {
  try {
    for await (const task of bus.pull('judge.groups', { credit: 3, signal: new AbortController().signal })) {
      story.push(`${task.id}/${task.deliveries}`)
      if (!(await bus.find('dropped', task.id))) {
        await bus.append('dropped', task.id, { step: 0, group: task.id, reason: `delivery ${task.deliveries}` })
      }
      await task.ack()
    }
  } catch {
    story.push('crashed')
  }
}

async function simulate(seed: number): Promise<{ story: string[]; records: LogRecord[]; net: MemoryNet }> {
  const clock = new SimulatedClock()
  const faults = { seed, drop: 0.15, duplicate: 0.15, reorder: 0.3, delayMs: 200 }
  const net = createMemoryNet(`seed-${seed}`, { clock, faults, ackWaitMs: 1000 })
  const producer = net.connect('questioner.1')
  const story: string[] = []
  const doomed = net.connect('judge.doomed')
  const workers = [work(doomed, story), work(net.connect('judge.1'), story)]
  for (let i = 0; i < TASKS; i++) {
    await producer.publish('judge.groups', `t${i}`, {
      step: 0,
      groups: [{ group: `t${i}`, questions: 'q', answers: null }],
    })
  }
  for (let passed = 0; passed < 15_000; passed += 50) {
    if (passed === 100 + (seed % 5) * 50) net.crash(doomed)
    clock.increment(50)
    await turn()
  }
  const records: LogRecord[] = []
  const reading = producer.read(['dropped', 'dead'], { follow: false, signal: new AbortController().signal })
  for await (const record of reading) records.push(record)
  await net.close()
  await Promise.all(workers)
  return { story, records, net }
}

test('nothing is lost and nothing counts twice, for any seed', async () => {
  let redelivered = 0
  for (let seed = 1; seed <= 12; seed++) {
    const { story, records } = await simulate(seed)
    const ids = records.map(({ event, id }) => (event === 'dead' ? id.replace('judge-groups-', '') : id))
    expect(new Set(ids).size, `seed ${seed}`).toBe(TASKS)
    expect(records.filter(({ event }) => event === 'dropped').length, `seed ${seed}`).toBe(
      new Set(records.filter(({ event }) => event === 'dropped').map(({ id }) => id)).size,
    )
    redelivered += story.filter((line) => !line.endsWith('/1') && line !== 'crashed').length
  }
  expect(redelivered).toBeGreaterThan(12)
})

test('a seed tells the same story each time', async () => {
  const [first, again, other] = [await simulate(7), await simulate(7), await simulate(8)]
  expect(again.story).toEqual(first.story)
  expect(other.story).not.toEqual(first.story)
})
