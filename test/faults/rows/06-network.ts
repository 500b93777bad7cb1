/** The line of the only worker is cut, goes dead without a word, gets slow, loses packets: it recovers without hands. */
import { setTimeout as sleep } from 'node:timers/promises'
import { BadLine, GOOD } from '../bad-line.ts'
import type { Fault } from '../fault.ts'
import { ALL, NO_WORKERS } from '../run.ts'

const CUT_MS = 8_000
const MOST_SECONDS = 30

export const network: Fault = {
  row: '6',
  name: 'a line that is cut, half-open, 500 ms slow, and loses 5 %',
  async run(lab) {
    // As other machines have it: weights and gradients go through the line, too.
    const run = await lab.run(18, [...NO_WORKERS, '--set', 'bus.blobs=server'])
    const line = await BadLine.to(run.port)
    lab.finally(() => line.close())
    const worker = await run.join(ALL, {}, { url: `nats://127.0.0.1:${line.port}` })
    await run.step(2)
    for (const time of [1, 2]) {
      await run.enters('serving', 'model', worker)
      line.become({ ...GOOD, cut: true })
      await sleep(CUT_MS)
      line.become(GOOD)
      await run.recover(Date.now())
      lab.say(`cut ${time}`)
    }
    for (const time of [1, 2]) {
      await run.enters('serving', 'model', worker)
      line.deafen()
      await run.recover(Date.now())
      lab.say(`half-open ${time}`)
    }
    const [slow, lossy] = [
      { ...GOOD, delay: 250 },
      { ...GOOD, loss: 0.05 },
    ]
    for (const [what, quality] of Object.entries({ '500 ms': slow, '5 % loss': lossy })) {
      const [from, began] = [run.steps, Date.now()]
      line.become(quality)
      await run.step(from + 3, 180)
      lab.figures[`seconds per step at ${what}`] = Number(((Date.now() - began) / 3000).toFixed(1))
      line.become(GOOD)
    }
    const longest = Math.max(...lab.recoveries)
    lab.expect(longest < MOST_SECONDS, 'progress', `it took ${longest.toFixed(1)} s until the run went on`)
    lab.figures['segments lost'] = line.lost
    await run.prove()
  },
}
