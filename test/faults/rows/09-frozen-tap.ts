/** Taps that stopped reading: the run is as fast as without them. */
import type { Fault } from '../fault.ts'
import type { Run } from '../run.ts'
import { median } from '../statistics.ts'

const PHASES = 3
const PHASE_STEPS = 12
const TAPS = 3
const LEAST_SHARE = 0.9

export const frozenTap: Fault = {
  row: '9',
  name: `${TAPS} frozen taps: throughput at least ${LEAST_SHARE * 100} %`,
  async run(lab) {
    // Steps go on while taps start.
    const run = await lab.run(2 * PHASES * PHASE_STEPS + PHASES * 40)
    await run.step(3)
    // With and without them in turn, so that what else the machine does falls on both.
    const seconds: Record<'frozen' | 'alone', number[]> = { frozen: [], alone: [] }
    for (let phase = 1; phase <= PHASES; phase++) {
      seconds.alone.push(...(await stepSeconds(run, PHASE_STEPS)))
      const taps = Array.from({ length: TAPS }, () =>
        lab.start(['tap', '--run', run.folder, '--follow', '--json', '--since', 'start']),
      )
      await Promise.all(taps.map((tap) => lab.until('the tap reads', () => tap.lines > 20)))
      for (const tap of taps) tap.kill('SIGSTOP')
      seconds.frozen.push(...(await stepSeconds(run, PHASE_STEPS)))
      for (const tap of taps) tap.kill('SIGKILL')
      lab.say(`phase ${phase} of ${PHASES}`)
    }
    const share = median(seconds.alone) / median(seconds.frozen)
    lab.figures['share of the throughput without taps'] = Number(share.toFixed(3))
    lab.expect(
      share >= LEAST_SHARE,
      'unharmed',
      `with frozen taps the run has ${(100 * share).toFixed(0)} % of its speed`,
    )
    await run.prove({ sameWeights: false })
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
