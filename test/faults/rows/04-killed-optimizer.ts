/** Kill -9 of the Optimizer, with its whole process, at seven points of an update. */
import type { Fault } from '../fault.ts'
import { FAILPOINTS } from '../misfortune.ts'

const STEPS = 5

export const killedOptimizer: Fault = {
  row: '4',
  name: `kill -9 of the Optimizer at ${FAILPOINTS.length} points`,
  async run(lab) {
    for (const at of FAILPOINTS) {
      lab.say(at)
      const args = at === 'server-blob' ? ['--set', 'bus.blobs=server'] : []
      const run = await lab.run(STEPS, args, { misfortune: { die: { at, step: 3 } } })
      const { signal } = await run.program.ended
      lab.expect(signal === 'SIGKILL', 'progress', `${at}: the process did not die, so nothing is shown`)
      const killed = Date.now()
      await run.resume()
      // Only the checkpoint is written after the last step.
      if (at !== 'checkpoint') await run.recover(killed)
      await run.prove()
    }
    lab.figures['points'] = FAILPOINTS.join(' ')
  },
}
