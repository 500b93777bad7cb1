/**
 * `npm run faults`: kills, freezes, cuts off, fills up and corrupts what a run is made of, with real processes and a
 * real server, and proves after each that nothing was lost. Exit 1 when something does not hold.
 */
import { Command, Option } from 'commander'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { collect } from '../../runners/cli/options.ts'
import type { Fault, Failure, Result } from './fault.ts'
import { Lab } from './lab.ts'
import { StandstillError } from './standstill.ts'
import { mutatedCopy } from './mutated-copy.ts'
import { MUTATIONS } from './mutations.ts'
import { Reference } from './reference.ts'
import { ROWS } from './rows/all.ts'

interface Options {
  readonly json?: true
  readonly only?: string[]
  readonly keep?: true
  readonly mutate?: string
}

const command = new Command('faults')
  .description('Proves that a run survives what can go wrong. Takes about 20 minutes on two cores.')
  .option('--only <row>', 'a row of the table, repeatable', collect)
  .option('--json', 'one JSON object per row on stdout, then the totals')
  .option('--keep', 'keep the folders of the runs, and say where they are')
  .addOption(
    new Option(
      '--mutate <guard>',
      'switch off a guard in a copy of the program: rows must fail, and say what broke',
    ).choices(MUTATIONS.map(({ name }) => name)),
  )
  .addHelpText(
    'after',
    '\nExamples:\n  $ npm run faults\n  $ npm run faults -- --only 1 --only 12 --json\n  $ npm run faults -- --mutate fence',
  )
  .action(main)

async function main({ mutate, ...options }: Options): Promise<void> {
  if (mutate !== undefined) return playMutated(mutate, options)
  const { json, only, keep } = options
  const rows = ROWS.filter(({ row }) => only === undefined || only.includes(row))
  if (rows.length === 0) command.error(`there is no such row; there are ${ROWS.map(({ row }) => row).join(', ')}`)
  const dir = await mkdtemp(join(tmpdir(), 'visplay-faults-'))
  const reference = new Reference(dir)
  const started = Date.now()
  const results: Result[] = []
  for (const fault of rows) {
    process.stderr.write(`\r\x1b[K${fault.row} ${fault.name}\n`)
    const result = await play(fault, join(dir, `row-${fault.row}`), reference)
    results.push(result)
    process.stdout.write(`${json ? JSON.stringify({ event: 'row', ...result }) : lineOf(result)}\n`)
  }
  const failed = results.filter(({ passed }) => !passed).length
  const skipped = results.filter((result) => result.skipped !== null).length
  const passed = results.length - failed - skipped
  const seconds = (Date.now() - started) / 1000
  if (json) process.stdout.write(`${JSON.stringify({ event: 'done', passed, failed, skipped, seconds })}\n`)
  else process.stdout.write(`${passed} passed, ${failed} failed, ${skipped} skipped in ${seconds.toFixed(0)} s\n`)
  if (keep) process.stderr.write(`the runs are in ${dir}\n`)
  else await removed(dir)
  if (failed > 0) process.exitCode = 1
}

/** The rows that must notice it, played by a copy of the program and of this suite in which a guard is off. */
async function playMutated(name: string, { json, keep }: Options): Promise<void> {
  const { about, edits, rows, breaks } = MUTATIONS.find((mutation) => mutation.name === name)!
  const dir = await mkdtemp(join(tmpdir(), 'visplay-mutated-'))
  const root = await mutatedCopy(dir, edits)
  const args = [
    '--import',
    'tsx',
    join(root, 'test', 'faults', 'main.ts'),
    '--json',
    ...rows.flatMap((r) => ['--only', r]),
  ]
  const child = spawn(process.execPath, args, { cwd: root, stdio: ['ignore', 'pipe', 'inherit'] })
  let said = ''
  child.stdout.on('data', (data: Buffer) => (said += data.toString()))
  await once(child, 'close')
  const results = said
    .split('\n')
    .flatMap((line) => (line.startsWith('{"event":"row"') ? [JSON.parse(line) as Result] : []))
  const broken = [...new Set(results.flatMap(({ failures }) => failures.map(({ invariant }) => invariant)))]
  const noticed = breaks.every((invariant) => broken.includes(invariant))
  for (const result of results)
    process.stdout.write(`${json ? JSON.stringify({ event: 'row', ...result }) : lineOf(result)}\n`)
  const done = { event: 'done', mutation: name, about, noticed, broken, expected: breaks }
  const verdict = noticed ? 'noticed' : 'NOT NOTICED: the suite is too weak'
  process.stdout.write(
    json ? `${JSON.stringify(done)}\n` : `${name} (${about}): ${verdict}, broken: ${broken.join(', ')}\n`,
  )
  if (!keep) await removed(dir)
  // The suite must fail on such a program; that it does not is the worse end.
  process.exitCode = noticed ? 1 : 2
}

async function play(fault: Fault, dir: string, reference: Reference): Promise<Result> {
  const { row, name } = fault
  const started = Date.now()
  const skipped = (await fault.missing?.()) ?? null
  const lab = new Lab(dir, reference, (message) => process.stderr.write(`\r\x1b[K  ${message}`))
  try {
    if (skipped === null) await fault.run(lab)
  } catch (error) {
    lab.failures.push(failureOf(error))
    await lab.explain().catch((cause: unknown) => lab.failures.push(failureOf(cause)))
  } finally {
    await lab.close().catch((error: unknown) => lab.failures.push(failureOf(error)))
    process.stderr.write('\r\x1b[K')
  }
  const { failures, figures } = lab
  const times = lab.recoveries.toSorted((a, b) => a - b)
  const recovery =
    times.length === 0
      ? null
      : { count: times.length, median: times[Math.floor(times.length / 2)]!, max: times.at(-1)! }
  const seconds = (Date.now() - started) / 1000
  return { row, name, passed: failures.length === 0, skipped, failures, recovery, figures, seconds }
}

/** A server that lost its program goes on writing for a moment. */
const removed = (dir: string): Promise<void> =>
  rm(dir, { recursive: true, force: true, maxRetries: 20, retryDelay: 250 })

const failureOf = (error: unknown): Failure => ({
  invariant: 'progress',
  message: error instanceof StandstillError ? error.message : String((error as Error).stack ?? error),
})

/** Failures of a row that people are shown; with --json all of them. */
const SHOWN = 10

function lineOf({ row, name, passed, skipped, failures, recovery, figures, seconds }: Result): string {
  const state = skipped !== null ? 'skipped' : passed ? 'passed ' : 'FAILED '
  const times = recovery ? `  back after ${recovery.median.toFixed(1)} s, at most ${recovery.max.toFixed(1)} s` : ''
  const seen = Object.entries(figures).map(([figure, value]) => `${figure} ${value}`)
  return [
    `${row.padStart(2)}  ${state}  ${name} (${seconds.toFixed(0)} s)${times}`,
    ...(skipped === null ? [] : [`    ${skipped}`]),
    ...(seen.length === 0 ? [] : [`    ${seen.join(', ')}`]),
    ...failures.slice(0, SHOWN).map(({ invariant, message }) => `    ${invariant}: ${message}`),
    ...(failures.length > SHOWN ? [`    and ${failures.length - SHOWN} more`] : []),
  ].join('\n')
}

await command.parseAsync()
