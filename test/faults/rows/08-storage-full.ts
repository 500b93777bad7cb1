/** The streams of a run, or the disk of its blobs, are full for a while: nobody loses anything, everybody waits, and it goes on. */
import { rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { stores } from '../../../bus/subjects.ts'
import type { Fault } from '../fault.ts'
import type { Lab } from '../lab.ts'

const FULL_MS = 6_000

export const storageFull: Fault = {
  row: '8',
  name: 'storage full, four times: producers pause, and go on when there is room',
  async run(lab) {
    await fullStreams(lab)
    await fullDisk(lab)
  },
}

async function fullStreams(lab: Lab): Promise<void> {
  const run = await lab.run(24, ['--set', 'bus.blobs=server'])
  const { jsm } = await run.intruder()
  const streams = [stores.log(run.name), `OBJ_${stores.blobs(run.name)}`, stores.tasks(run.name)]
  for (const [i, stream] of streams.entries()) {
    await run.step(2 + 4 * i)
    const { config, state } = await jsm.streams.info(stream)
    const { max_bytes, max_msgs } = config
    // A queue empties by itself: one task alone that waits for another is in the way of all.
    const full = i === 2 ? { max_msgs: 1 } : { max_bytes: Math.max(1, state.bytes) }
    await jsm.streams.update(stream, { ...config, ...full, discard: config.discard })
    const before = run.steps
    await sleep(FULL_MS)
    lab.figures[`steps while ${stream.split('_').at(-1)!.toLowerCase()} was full`] = run.steps - before
    await jsm.streams.update(stream, { ...config, max_bytes, max_msgs })
    const room = Date.now()
    await run.recover(room)
    lab.say(`${stream} was full`)
  }
  await run.prove()
}

async function fullDisk(lab: Lab): Promise<void> {
  const sign = join(lab.dir, 'full')
  const run = await lab.run(10, [], { misfortune: { full: sign } })
  await run.step(2)
  await writeFile(sign, '')
  const before = run.steps
  await sleep(FULL_MS)
  const steps = run.steps - before
  lab.figures['steps while the disk was full'] = steps
  // A step may have been committed already, and not been told yet.
  lab.expect(steps <= 1, 'progress', `${steps} steps while no blob could be written: nothing is shown`)
  await rm(sign)
  const room = Date.now()
  await run.recover(room)
  lab.say('the disk was full')
  await run.prove()
}
