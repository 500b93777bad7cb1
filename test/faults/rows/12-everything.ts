/** Kill -9 of everything at once: the run, its server, everybody who joined. */
import type { Fault } from '../fault.ts'
import { ALL } from '../run.ts'

const TIMES = 3

export const everything: Fault = {
  row: '12',
  name: `kill -9 of everything at once × ${TIMES}`,
  async run(lab) {
    const run = await lab.run(4 * TIMES + 2)
    for (let time = 1; time <= TIMES; time++) {
      // Else it might end before they are there.
      run.program.kill('SIGSTOP')
      const workers = await Promise.all([run.join(ALL), run.join('model=1')])
      run.program.kill('SIGCONT')
      await run.enters('serving', 'model', run.program, ...workers)
      const server = await run.server()
      for (const worker of workers) worker.kill('SIGKILL')
      process.kill(server, 'SIGKILL')
      run.program.kill('SIGKILL')
      await run.program.ended
      const killed = Date.now()
      await run.resume()
      await run.recover(killed)
      lab.say(`${time} of ${TIMES}`)
    }
    await run.prove()
  },
}
