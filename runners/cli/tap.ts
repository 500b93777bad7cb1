/** `visplay tap`: listens to a run. */
import type { Command } from 'commander'
import { constants, setPriority } from 'node:os'
import type { Since } from '../../bus/nats/tap.ts'
import { UsageError } from './fail.ts'
import { interruptible } from './interrupt.ts'
import { newCommand } from './options.ts'
import type { CommonOptions } from './options.ts'
import { createOutput } from './output.ts'
import { chosenRun } from './run-folder.ts'
import { accessOf, withServer, type ServerOptions } from './server-options.ts'

interface Options extends CommonOptions, ServerOptions {
  readonly run?: string
  readonly since?: string
  readonly follow?: true
  readonly trace?: string
}

export function command(): Command {
  const about = [
    'Shows what the actors of a run say to each other, decoded and checked; never slows the run.',
    'Without --since it shows what is said from now on; with it, what the log holds. A run that has ended is read as well.',
  ].join('\n')
  const tap = newCommand('tap', about, [
    ['', 'the newest run here, from now on'],
    ["'log.verdict.*' --run my-run --since start --json", 'every verdict so far, as JSON lines'],
    ['--since 10m --follow', 'the last ten minutes, and on'],
    ['--since start --trace s3-i5', 'all that has to do with one image task or group'],
    ["'live.>' --nats nats://host:4222 --creds tap.creds --run my-run", 'states of the actors, on another server'],
  ])
    .argument('[filter]', 'subject after visplay.<run>., with * and >', '>')
    .option('--run <run>', 'name or folder of a run; the newest in runs/ if left out')
  return withServer(tap)
    .option('--since <point>', 'start, a sequence number of the log, or how long ago: 90s, 10m, 2h')
    .option('--follow', 'go on with what is said from now on')
    .option('--trace <id>', 'only what belongs to this id or trace')
    .action(run)
}

async function run(filter: string, options: Options): Promise<void> {
  const output = createOutput(options.json === true)
  const since = sinceOf(options.since)
  const follow = options.follow === true || since === null
  if (!/^(?:(?:task|log|live|\*)\..+|task|log|live|>)$/.test(filter)) {
    throw new UsageError(`the filter "${filter}" begins with none of task, log, live, * and >`)
  }
  const [{ openTap }, { belongsTo, decodeHeard, lineOf }] = await Promise.all([
    import('../tap/open.ts'),
    import('../tap/decode.ts'),
  ])
  // Whoever only watches gets what the run leaves of the processor.
  setPriority(constants.priority.PRIORITY_LOW)
  const server = await accessOf(options)
  const { tap, close } = await openTap(server, server === undefined ? chosenRun(options.run) : options.run)
  const wanted = options.trace === undefined ? () => true : belongsTo(options.trace)
  const columns = process.stdout.isTTY ? process.stdout.columns : Infinity
  try {
    await interruptible(async (signal) => {
      for await (const heard of tap.listen({ filter, since, follow, signal })) {
        const line = await decodeHeard(heard, tap)
        if (!wanted(line)) continue
        output.data(line)
        output.text(lineOf(line, columns))
      }
    })
  } finally {
    await close()
  }
}

const UNITS: Readonly<Record<string, number>> = { s: 1, m: 60, h: 3600, d: 86_400 }

function sinceOf(text: string | undefined): Since {
  if (text === undefined) return null
  if (text === 'start') return { seq: 1 }
  const [, number, unit] = /^(\d+)([smhd]?)$/.exec(text) ?? []
  if (number === undefined) {
    throw new UsageError(`--since takes start, a sequence number, or a time such as 10m; it got "${text}"`)
  }
  const seconds = UNITS[unit ?? '']
  return seconds === undefined
    ? { seq: Number(number) }
    : { time: new Date(Date.now() - Number(number) * seconds * 1000) }
}
