/** The simulation as a command: `node --import tsx test/simulation/simulate.ts --help`. Exit 1 when a seed fails. */
import { Command, InvalidArgumentError } from 'commander'
import { AUDITED, simulate, type Broken } from './simulation.ts'
import { replayCommand, simulateSeeds } from './simulate-seeds.ts'

interface Options {
  readonly seeds: number
  readonly from: number
  readonly seed?: number
  readonly failures: number
  readonly json?: boolean
}

function integer(text: string): number {
  if (!/^\d+$/.test(text)) throw new InvalidArgumentError('it is a whole number')
  return Number(text)
}

const data = (line: object) => process.stdout.write(`${JSON.stringify(line)}\n`)
const note = (line: string) => process.stderr.write(`${line}\n`)
const tell = ({ invariant, about, message }: Broken) => `${invariant} (${AUDITED[invariant]}): ${about}: ${message}`

await new Command('simulate')
  .description('Plays whole runs in simulated time under misfortunes that a seed decides, and checks what must hold.')
  .option('--seeds <n>', 'how many', integer, 10_000)
  .option('--from <seed>', 'the first one', integer, 1)
  .option('--seed <seed>', 'replays one and prints its story', integer)
  .option('--failures <n>', 'stops after this many seeds that fail', integer, 3)
  .option('--json', 'JSON lines on stdout')
  .action((options: Options) => (options.seed === undefined ? playAll(options) : replay(options.seed, options)))
  .parseAsync()

async function replay(seed: number, { json }: Options): Promise<void> {
  const { lines, violations, plan, hash, counts, seconds } = await simulate(seed)
  if (json) data({ event: 'story', seed, plan, hash, counts, seconds, violations, lines })
  else {
    process.stdout.write(`${JSON.stringify(plan, null, 2)}\n${lines.join('\n')}\n`)
    process.stdout.write(`story ${hash}, ${seconds} s of simulated time\n`)
    for (const violation of violations) process.stdout.write(`BROKEN ${tell(violation)}\n`)
    if (violations.length === 0) process.stdout.write('all that must hold holds\n')
  }
  if (violations.length > 0) process.exitCode = 1
}

async function playAll({ seeds, from, failures: most, json }: Options): Promise<void> {
  const enough = new AbortController()
  const failed = new Set<number>()
  let told = 0
  const result = await simulateSeeds({
    from,
    count: seeds,
    signal: enough.signal,
    onFailure: (failure) => {
      failed.add(failure.seed)
      if (json) data({ event: 'failure', ...failure, replay: replayCommand(failure.seed) })
      else note(`seed ${failure.seed}: ${tell(failure)}\n  ${replayCommand(failure.seed)}`)
      if (failed.size >= most) enough.abort()
    },
    onProgress: (played) => {
      if (played - told < seeds / 20 && played < seeds) return
      told = played
      note(`${played} of ${seeds} seeds, ${failed.size} failed`)
    },
  })
  const { seeds: played, seconds, counts } = result
  if (json) data({ event: 'done', ok: failed.size === 0, seeds: played, failed: [...failed], seconds, counts })
  else {
    const figures = Object.entries(counts ?? {}).map(([name, n]) => `${n} ${name}`)
    process.stdout.write(`${played} seeds in ${seconds.toFixed(1)} s, ${failed.size} failed; ${figures.join(', ')}\n`)
  }
  if (failed.size > 0) process.exitCode = 1
}
