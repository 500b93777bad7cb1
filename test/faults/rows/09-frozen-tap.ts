/** Taps that stopped reading: the run is as fast as without them. */
import { setTimeout as sleep } from 'node:timers/promises'
import type { Fault } from '../fault.ts'
import type { Run } from '../run.ts'
import { median } from '../statistics.ts'

const PHASES = 4
const PHASE_STEPS = 12
const TAPS = 3
const LEAST_SHARE = 0.9

export const frozenTap: Fault = {
  row: '9',
  name: `${TAPS} frozen taps: throughput at least ${LEAST_SHARE * 100} %`,
  async run(lab) {
    const run = await lab.run(2 * PHASES * PHASE_STEPS + 6)
    await run.step(3)
    const taps = Array.from({ length: TAPS }, () =>
      lab.start(['tap', '--run', run.folder, '--follow', '--json', '--since', 'start']),
    )
    await Promise.all(taps.map((tap) => lab.until('the tap reads', () => tap.lines > 20)))
    // Frozen and reading in turn, so that what else the machine does falls on both.
    const seconds: Record<'frozen' | 'reading', number[]> = { frozen: [], reading: [] }
    for (let phase = 0; phase < 2 * PHASES; phase++) {
      const state = phase % 2 === 0 ? 'frozen' : 'reading'
      for (const tap of taps) tap.kill(state === 'frozen' ? 'SIGSTOP' : 'SIGCONT')
      await sleep(100)
      seconds[state].push(...(await stepSeconds(run, PHASE_STEPS)))
      lab.say(`phase ${phase + 1} of ${2 * PHASES}`)
    }
    const share = median(seconds.reading) / median(seconds.frozen)
    lab.figures['throughput beside reading taps'] = Number(share.toFixed(3))
    lab.expect(
      share >= LEAST_SHARE,
      'unharmed',
      `with frozen taps the run has ${(100 * share).toFixed(0)} % of its speed`,
    )
    for (const tap of taps) tap.kill('SIGCONT')
    await run.prove()
  },
}

/** How long each of the next steps took. */
async function stepSeconds(run: Run, steps: number): Promise<number[]> {
  const from = run.steps
  await run.step(from + steps, 120)
  return run.program
    .events()
    .flatMap((e) => (e.event === 'step' ? [e.seconds] : []))
    .slice(from, from + steps)
}
