/** The weights of a version are corrupt, truncated or missing when a worker wants them. */
import type { Fault } from '../fault.ts'
import type { Program } from '../../support/program.ts'
import { joinEvents } from '../run.ts'

const DAMAGES = ['corrupt', 'truncated', 'missing'] as const

export const badBlobs: Fault = {
  row: '11',
  name: 'corrupt, truncated and missing weights: the old version stays, it is said, it heals',
  async run(lab) {
    const run = await lab.run(40)
    const worker = await run.join('model=1')
    const intruder = await run.intruder()
    const { bus } = intruder
    for (const damage of DAMAGES) {
      worker.kill('SIGSTOP')
      const from = run.steps
      await run.step(from + 2)
      // The process of the run has the newest weights in its memory; the worker has not seen them.
      run.program.kill('SIGSTOP')
      const { adapter } = (await bus.getHead())!.head
      const bytes = await bus.getBlob(adapter)
      if (damage === 'missing') await bus.deleteBlob(adapter)
      else await intruder.overwriteBlob(adapter, damage === 'truncated' ? bytes.subarray(0, 1000) : flipped(bytes))
      const told = complaints(worker)
      worker.kill('SIGCONT')
      await lab.until(`the worker says that weights are ${damage}`, () => complaints(worker) > told)
      const damaged = Date.now()
      run.program.kill('SIGCONT')
      await run.recover(damaged)
      lab.say(damage)
    }
    const alarms = (await (await run.tap()).counts('alarm')).events
    lab.expect(alarms >= DAMAGES.length, 'visible', `${alarms} alarms in the log for ${DAMAGES.length} damages`)
    lab.figures['alarms'] = alarms
    await run.prove()
  },
}

const flipped = (bytes: Uint8Array): Uint8Array => bytes.map((byte, i) => (i === 5000 ? byte ^ 1 : byte))

const complaints = (worker: Program): number =>
  joinEvents(worker).filter((e) => e.event === 'note' && e.message.includes('blob')).length
