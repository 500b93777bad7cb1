/** Kill -9 of a worker in mid-batch, twenty times. */
import type { Fault } from '../fault.ts'
import { NO_MODEL } from '../run.ts'

const KILLS = 20

export const killedWorkers: Fault = {
  row: '1',
  name: `kill -9 of a worker in mid-batch × ${KILLS}`,
  async run(lab) {
    const run = await lab.run(KILLS + 4, NO_MODEL)
    const workers = [await run.join('model=1'), await run.join('model=1')]
    for (let kill = 1; kill <= KILLS; kill++) {
      const victim = workers.shift()!
      const step = run.steps
      await run.enters('serving', 'model', victim)
      victim.kill('SIGKILL')
      const killed = Date.now()
      // Its successor; the other one goes on meanwhile.
      workers.push(run.joining('model=1'))
      await run.recover(killed)
      lab.say(`kill ${kill} of ${KILLS} in step ${step + 1}`)
    }
    await run.prove()
    lab.figures['kills'] = KILLS
  },
}
