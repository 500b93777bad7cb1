/** An Optimizer that takes two seconds for an update, before workers that could do far more: nothing piles up. */
import { setTimeout as sleep } from 'node:timers/promises'
import { readFile } from 'node:fs/promises'
import { stores } from '../../../bus/subjects.ts'
import type { Fault } from '../fault.ts'
import { ALL } from '../run.ts'

const STEPS = 10
const MAX_LAG = 1
const MB = 2 ** 20

export const slowOptimizer: Fault = {
  row: '10',
  name: 'a slow Optimizer: bounded queues, log and memory',
  async run(lab) {
    const run = await lab.run(STEPS, ['--set', `train.maxLag=${MAX_LAG}`], { misfortune: { slow: 2000 } })
    await run.join(ALL)
    const { jsm } = await run.intruder()
    const tap = await run.tap()
    const memory: number[] = []
    let waiting = 0
    let ahead = 0
    while (!run.over) {
      const [{ state }, asked, versions] = await Promise.all([
        jsm.streams.info(stores.tasks(run.name)),
        tap.counts('questions'),
        tap.counts('version'),
      ])
      waiting = Math.max(waiting, state.messages)
      // Four images a step; version 0 is the base.
      ahead = Math.max(ahead, asked.events / 4 - (versions.events - 1))
      memory.push(await residentBytes(run.program.pid))
      if (await Promise.race([run.program.ended.then(() => true), sleep(100, false)])) break
    }
    const bound = 4 * (MAX_LAG + 2) * (1 + 2 * 3)
    lab.expect(waiting <= bound, 'bounded', `${waiting} tasks waited, more than ${bound}`)
    lab.expect(ahead <= MAX_LAG + 1, 'bounded', `questions of ${ahead} steps waited for the Optimizer`)
    const [early, late] = [Math.max(...memory.slice(0, memory.length / 2)), Math.max(...memory)]
    lab.expect(late - early < 200 * MB, 'bounded', `memory grew by ${((late - early) / MB).toFixed(0)} MB`)
    Object.assign(lab.figures, { 'tasks waiting at most': waiting, 'steps ahead at most': ahead })
    lab.figures['memory grew by MB'] = Math.round((late - early) / MB)
    await run.prove({ sameWeights: false })
  },
}

/** 0 where the system does not tell. */
async function residentBytes(pid: number): Promise<number> {
  const status = await readFile(`/proc/${pid}/status`, 'utf8').catch(() => '')
  return Number(/VmRSS:\s+(\d+)/.exec(status)?.[1] ?? 0) * 1024
}
