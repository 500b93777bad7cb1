/** `visplay replay`: judges a run again from its log. */
import type { Command } from 'commander'
import { join } from 'node:path'
import type { StepReplay } from '../../actors/replay.ts'
import type { Config } from '../../configs/schema.ts'
import { interruptible } from './interrupt.ts'
import { collect, integer, newCommand } from './options.ts'
import type { CommonOptions } from './options.ts'
import { createOutput } from './output.ts'
import type { Output } from './output.ts'
import { chosenRun } from './run-folder.ts'

interface Options extends CommonOptions {
  readonly recipe?: string
  readonly set?: string[]
  readonly to?: number
}

export function command(): Command {
  const about = [
    'Judges every group of a run again, from its log alone, and puts its updates together again: with the recipe of the',
    'run, verdicts and updates must come out the same (exit 1 if not); with another one, a table compares the two.',
  ].join('\n')
  return newCommand('replay', about, [
    ['my-run', 'must find the same verdicts and updates'],
    ['my-run --recipe majority-vote', 'what another recipe would have rewarded'],
    ['my-run --recipe other.yaml', 'recipe and knobs from a file, as evolve --config takes it'],
    ['my-run --set recipes.consensus.gate=both --json', 'the same recipe with another knob'],
    ['my-run --to 5000', 'the state of the run at record 5000 of its log'],
  ])
    .argument('[run]', 'name or folder of a run; the newest in runs/ if left out')
    .option('--recipe <name|file>', 'judge by this recipe, or by this YAML file')
    .option('--set <key=value>', 'differ from the configuration of the run', collect)
    .option('--to <seq>', 'read the log only up to this record', integer(1))
    .action(run)
}

async function run(name: string | undefined, options: Options): Promise<void> {
  const output = createOutput(options.json === true)
  const folder = chosenRun(name)
  const [{ readConfig, loadConfig }, { openTap }, { compare, replayRun }] = await Promise.all([
    import('../../configs/load.ts'),
    import('../tap/open.ts'),
    import('../replay/replay.ts'),
  ])
  const recorded = readConfig(join(folder, 'config.yaml'))
  const { recipe, set = [], to = Infinity } = options
  const isFile = recipe !== undefined && /\.ya?ml$/.test(recipe)
  const config: Config = loadConfig({
    over: recorded,
    preset: null,
    file: isFile ? recipe : undefined,
    sets: set,
    flags: [{ key: 'recipe', value: isFile ? undefined : recipe, flag: '--recipe' }],
  })
  const differs = recipe !== undefined || set.length > 0
  const { tap, close } = await openTap(undefined, folder)
  try {
    const { state, steps } = await interruptible((signal) =>
      replayRun(tap, {
        config,
        only: differs ? null : recorded.recipe,
        to,
        signal,
        onStep: (step) => output.data({ event: 'step', ...step }),
        onProblem: (seq, problem) => output.note(`record ${seq} is left out: ${problem}`),
      }),
    )
    const { version, verdicts, dropped, dead } = state
    output.data({ event: 'state', run: recorded.run, ...state })
    output.text(
      `run ${recorded.run} at record ${state.seq}: version ${version ?? 'none'}, ${state.steps} steps, ` +
        `${verdicts} verdicts, ${dropped} groups dropped, ${dead} tasks given up`,
    )
    if (differs) showComparison(output, recorded.recipe, config.recipe, steps, compare(steps))
    else showSameness(output, steps)
  } finally {
    await close()
  }
}

const sum = (steps: readonly StepReplay[], value: (step: StepReplay) => number): number =>
  steps.reduce((total, step) => total + value(step), 0)

/** Sets the exit code: the log must explain what the run did. */
function showSameness(output: Output, steps: readonly StepReplay[]): void {
  const others = sum(steps, (step) => step.others)
  const verdicts = sum(steps, (step) => step.verdicts) - others
  const same = sum(steps, (step) => step.same)
  const updates = steps.filter((step) => step.sameUpdate).length
  const ok = same === verdicts && updates === steps.length
  output.data({ event: 'done', ok, verdicts, same, others, steps: steps.length, sameUpdates: updates })
  output.text(`verdicts  ${same} of ${verdicts} the same`)
  if (others > 0) output.text(`          ${others} were given by other judges, and are taken as they are`)
  output.text(`updates   ${updates} of ${steps.length} the same (micro-batches by sha256)`)
  for (const { step, differing, sameUpdate } of steps.filter((s) => s.differing.length > 0 || !s.sameUpdate)) {
    const what = [...differing, ...(sameUpdate ? [] : ['its update'])]
    output.note(`step ${step} comes out otherwise: ${what.join(', ')}`)
  }
  if (!ok) process.exitCode = 1
}

function showComparison(
  output: Output,
  was: string,
  now: string,
  steps: readonly StepReplay[],
  rows: readonly { readonly metric: string; readonly was: number; readonly now: number }[],
): void {
  const both = sum(steps, (step) => step.trained.both)
  const sameSign = sum(steps, (step) => step.trained.sameSign)
  const verdicts = sum(steps, (step) => step.verdicts)
  const same = sum(steps, (step) => step.same)
  output.data({ event: 'done', was, now, verdicts, same, steps: steps.length, trainedByBoth: both, sameSign, rows })
  const width = Math.max(12, was.length, now.length) + 2
  output.text(`${''.padEnd(34)}${`was ${was}`.padStart(width + 4)}${`now ${now}`.padStart(width + 4)}`)
  for (const row of rows) {
    const cells = [row.was, row.now].map((value) => value.toFixed(3).padStart(width + 4))
    output.text(`${row.metric.padEnd(34)}${cells.join('')}`)
  }
  output.text(`${same} of ${verdicts} verdicts give the same rewards`)
  if (both > 0) {
    const share = ((100 * sameSign) / both).toFixed(1)
    output.text(`${both} completions are trained either way, ${share} % of them in the same direction`)
  }
}
