/** Whole runs in simulated time under misfortunes that a seed decides: see test/simulation. */
import { AUDITED } from '../../simulation/simulation.ts'
import { replayCommand, simulateSeeds } from '../../simulation/simulate-seeds.ts'
import type { Fault } from '../fault.ts'

const SEEDS = 10_000
/** More than a few failures tell nothing new. */
const ENOUGH = 5

export const simulation: Fault = {
  row: '16',
  name: `simulation in memory, ${SEEDS} seeds of drop, duplicate, reorder, delay, crash`,
  async run(lab) {
    const enough = new AbortController()
    const { seeds, counts, seconds } = await simulateSeeds({
      from: 1,
      count: SEEDS,
      signal: enough.signal,
      onFailure: ({ seed, invariant, about, message }) => {
        const what = `seed ${seed}: ${AUDITED[invariant]}: ${about}: ${message}; again: ${replayCommand(seed)}`
        lab.expect(false, invariant, what)
        if (lab.failures.length >= ENOUGH) enough.abort()
      },
      onProgress: (played) => lab.say(`${played} of ${SEEDS} seeds`),
    })
    Object.assign(lab.figures, counts, { seeds, 'seeds per second': Math.round(seeds / seconds) })
    lab.expect(seeds === SEEDS || lab.failures.length > 0, 'progress', `only ${seeds} seeds were played`)
  },
}
