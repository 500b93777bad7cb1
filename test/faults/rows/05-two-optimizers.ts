/** The leading Optimizer is frozen as it commits; another takes over; the first wakes up and commits what it had. */
import type { Fault } from '../fault.ts'
import { ALL } from '../run.ts'

export const twoOptimizers: Fault = {
  row: '5',
  name: 'a frozen leader and a second Optimizer: the commit of the first is refused',
  async run(lab) {
    const run = await lab.run(8, [], { misfortune: { freeze: { step: 3 } } })
    const standby = await run.join(`${ALL},optimizer=1`, {}, { role: 'optimizer' })
    await run.step(2)
    const frozen = Date.now()
    await run.enters('recording', 'optimizer', standby)
    lab.recoveries.push((Date.now() - frozen) / 1000)
    run.program.kill('SIGCONT')
    await run.prove()
    const notes = run.program.events().flatMap((e) => (e.event === 'note' ? [e.message] : []))
    const told = notes.some((note) => note.includes('trains from now on'))
    lab.expect(told, 'visible', 'the terminal did not say that another process trains')
  },
}
