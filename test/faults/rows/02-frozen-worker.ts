/** A worker that stands still beyond the acknowledgement time, in mid-batch, and then goes on with what is no longer its. */
import { setTimeout as sleep } from 'node:timers/promises'
import type { Fault } from '../fault.ts'
import { ACK_WAIT_S } from '../reference.ts'
import { ALL, NO_WORKERS, SINGLE } from '../run.ts'

const TIMES = 4

export const frozenWorker: Fault = {
  row: '2',
  name: `SIGSTOP of a worker beyond the acknowledgement time × ${TIMES}, then resumed`,
  async run(lab) {
    const run = await lab.run(TIMES * 2 + 3, [...NO_WORKERS, ...SINGLE])
    const [frozen] = [await run.join(ALL), await run.join(ALL)]
    for (let time = 1; time <= TIMES; time++) {
      await run.enters('serving', 'model', frozen!)
      frozen!.kill('SIGSTOP')
      const stopped = Date.now()
      await run.recover(stopped)
      await sleep(Math.max(0, stopped + 2 * ACK_WAIT_S * 1000 - Date.now()))
      frozen!.kill('SIGCONT')
      lab.say(`frozen ${time} of ${TIMES} times`)
    }
    await run.prove()
    lab.figures['frozen'] = TIMES
  },
}
