/** Kill -9 of the NATS server under load, ten times: the run starts it again and goes on. */
import type { Fault } from '../fault.ts'
import { ALL } from '../run.ts'

const KILLS = 10

export const killedServer: Fault = {
  row: '3',
  name: `kill -9 of the server × ${KILLS} under load`,
  async run(lab) {
    // Blobs on their way to it, too.
    const run = await lab.run(KILLS * 2 + 3, ['--set', 'bus.blobs=server'])
    const helper = await run.join(ALL)
    for (let kill = 1; kill <= KILLS; kill++) {
      await run.enters('serving', 'model', kill % 2 === 0 ? run.program : helper)
      process.kill(await run.server(), 'SIGKILL')
      await run.recover(Date.now())
      lab.say(`kill ${kill} of ${KILLS}`)
    }
    await run.prove()
    lab.figures['kills'] = KILLS
  },
}
