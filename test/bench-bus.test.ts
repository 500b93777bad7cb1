/** The benchmark of the bus measures what it says: shapes and plausibility of its figures, never speed. */
import { createHash } from 'node:crypto'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { encodeWeights } from '../actors/weights-codec.ts'
import { adapterOf } from '../runners/bench/bus/adapter.ts'
import { benchBus, effort, type BusBenchOptions, type BusRow } from '../runners/bench/bus/bench-bus.ts'
import { measureBroadcast } from '../runners/bench/bus/broadcast.ts'
import { Fleet } from '../runners/bench/bus/fleet.ts'
import { usageOf, usedBetween } from '../runners/bench/bus/proc.ts'
import { measureScale, SCALE } from '../runners/bench/bus/scale.ts'
import { program } from './support/program.ts'
import { SMALL_LEARNING } from './support/small-run.ts'

const signal = new AbortController().signal
const warnings: string[] = []
const onWarning = (message: string) => void warnings.push(message)

const numbers = (row: object) => Object.entries(row).filter(([, value]) => typeof value === 'number')

describe.runIf(process.platform === 'linux')('bench --bus', () => {
  let fleet: Fleet
  beforeAll(async () => {
    fleet = await Fleet.start(2, onWarning)
  })
  afterAll(() => fleet.close())

  test('counts the completions of simulated model actors, and what they cost', async () => {
    const settings = { ...SCALE, batchMs: 20, rows: 2, tokens: 3, warmBatches: 2, batches: 20, actors: 3 }
    const row = await measureScale(fleet, settings, signal, onWarning)
    expect(row).toMatchObject({ row: 'scale', actors: 3, processes: 2 })
    // No device is faster than its clock; a timer may be early by a fraction of a millisecond.
    expect(row.share).toBeGreaterThan(0)
    expect(row.share).toBeLessThan(1.05)
    expect(row.completionsPerSecond).toBeCloseTo(row.share * 3 * 2 * 50, 0)
    for (const [name, value] of numbers(row)) expect(value, name).toBeGreaterThanOrEqual(0)
    // Two completions of three tokens, an envelope of some hundred bytes; every record goes in once and out at least once.
    expect(row.logBytes).toBeGreaterThan(100)
    expect(row.logBytes).toBeLessThan(2000)
    expect(row.serverReadBytes).toBeGreaterThan(row.logBytes / 2)
    expect(row.serverWrittenBytes).toBeGreaterThan(row.logBytes)
  })

  test('more tokens are more bytes', async () => {
    const small = { ...SCALE, batchMs: 5, rows: 2, warmBatches: 1, batches: 5, actors: 1 }
    const few = await measureScale(fleet, { ...small, tokens: 2 }, signal, onWarning)
    const many = await measureScale(fleet, { ...small, tokens: 200 }, signal, onWarning)
    expect(many.logBytes - few.logBytes).toBeGreaterThan(198 * 10)
  })

  test('ends when it is told to', async () => {
    const settings = { ...SCALE, batchMs: 1, batches: 1e9, actors: 1 }
    const stop = new AbortController()
    const endless = measureScale(fleet, settings, stop.signal, onWarning)
    setTimeout(() => stop.abort(new Error('enough')), 300)
    await expect(endless).rejects.toThrow('enough')
  })

  test('sees every version reach every actor', async () => {
    const settings = { actors: 5, adapterBytes: 2 ** 20, versions: 2, signal, onNote: onWarning }
    const row = await measureBroadcast(fleet, settings)
    expect(row).toMatchObject({ row: 'broadcast', actors: 5, processes: 2, versions: 2 })
    expect(row.p50).toBeGreaterThan(0)
    expect(row.p99).toBeGreaterThanOrEqual(row.p50)
    expect(row.max).toBeGreaterThanOrEqual(row.p99)
    expect(row.max).toBeGreaterThanOrEqual(row.lastP50)
    for (const [name, value] of numbers(row)) expect(value, name).toBeGreaterThan(0)
  })

  test('plays the default run in memory, over NATS, and beside a tap', async () => {
    const sets = SMALL_LEARNING.filter((arg) => arg !== '--set')
    const rows = await all({ ...effort(true), parts: ['overhead', 'tap'], actors: 1, steps: 2, sets, signal })
    expect(rows.map(({ row }) => row)).toEqual(['overhead', 'tap'])
    const [overhead, tap] = rows
    if (overhead?.row !== 'overhead' || tap?.row !== 'tap') throw new Error('rows of other kinds')
    expect(overhead).toMatchObject({ steps: 2, rounds: 1 })
    expect(overhead.wallShare).toBeLessThan(1)
    expect(overhead.wallShare).toBeCloseTo(1 - overhead.memorySeconds / overhead.natsSeconds, 2)
    expect(overhead.serverShare).toBeGreaterThan(0)
    expect(overhead.serverShare).toBeLessThan(1)
    expect(tap.seconds).toBe(overhead.natsSeconds)
    expect(tap.slower).toBeCloseTo(tap.tappedSeconds / tap.seconds - 1, 2)
    expect(tap.tapShare).toBeGreaterThan(0)
    expect(warnings.filter((line) => !/^(round|version|preparing|a run|\d+ simulated)/.test(line))).toEqual([])
  })

  test('says one JSON object per line, and refuses what does not fit', async () => {
    const { code, stdout, stderr } = await program(['bench', '--bus', 'scale', '--actors', '1', '--quick', '--json'])
    expect(code, stderr).toBe(0)
    const lines = stdout
      .trimEnd()
      .split('\n')
      .map((line) => JSON.parse(line) as Record<string, unknown>)
    expect(lines.map((line) => line['row'] ?? line['event'])).toEqual([...lines.slice(1).map(() => 'scale'), 'done'])
    expect(lines.at(-1)).toMatchObject({ event: 'done', rows: lines.length - 1 })
    expect(await program(['bench', '--bus', 'speed'])).toMatchObject({ code: 2 })
    expect(await program(['bench', '--bus', '--arch', 'tiny'])).toMatchObject({ code: 2 })
  })
})

test('another version is another adapter of the same size', () => {
  const [a, b] = [1, 2].map((version) => encodeWeights(adapterOf(2 ** 20, version)))
  expect(a!.length).toBe(b!.length)
  expect(a!.length).toBeGreaterThan(2 ** 20)
  expect(createHash('sha256').update(a!).digest('hex')).not.toBe(createHash('sha256').update(b!).digest('hex'))
})

test.runIf(process.platform === 'linux')('processor time is that of the process, and grows', async () => {
  const before = await usageOf(process.pid)
  const start = process.cpuUsage()
  while (process.cpuUsage(start).user < 100_000);
  const { coreSeconds } = usedBetween(before, await usageOf(process.pid))
  expect(coreSeconds).toBeGreaterThan(0.08)
  await expect(usageOf(2 ** 30)).rejects.toThrow(/needs Linux/)
})

async function all(options: Omit<BusBenchOptions, 'onNote'>): Promise<BusRow[]> {
  const rows: BusRow[] = []
  for await (const row of benchBus({ ...options, onNote: onWarning })) rows.push(row)
  return rows
}
