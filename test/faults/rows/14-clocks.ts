/** Machines whose clocks are wrong by ten minutes, and event loops that stand still for three seconds. */
import type { Fault } from '../fault.ts'
import { ALL } from '../run.ts'

const TEN_MINUTES = 600_000

export const clocks: Fault = {
  row: '14',
  name: 'clocks ± 10 minutes, event loops blocked for 3 s',
  async run(lab) {
    const run = await lab.run(14, [], { misfortune: { block: { every: 7000, ms: 3000 } } })
    await run.join(`${ALL},optimizer=1`, { misfortune: { clock: TEN_MINUTES } }, { role: 'optimizer' })
    const late = { clock: -TEN_MINUTES, block: { every: 5000, ms: 3000 } }
    await run.join(`${ALL},optimizer=1`, { misfortune: late }, { role: 'optimizer' })
    await run.prove({ seconds: 180 })
  },
}
