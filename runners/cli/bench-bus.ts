/** `visplay bench --bus`: what the bus carries and costs. */
import { SCALES, type ScaleRow } from '../bench/bus/scale.ts'
import type { BusRow } from '../bench/bus/bench-bus.ts'
import type { BusPart } from '../bench/bus/parts.ts'
import { interruptible } from './interrupt.ts'
import type { Output } from './output.ts'
import { table } from './table.ts'

export interface BenchBusOptions {
  readonly parts: readonly BusPart[]
  readonly actors: number
  readonly quick: boolean
}

export async function benchBusCommand({ parts, actors, quick }: BenchBusOptions, output: Output): Promise<void> {
  const { benchBus, effort } = await import('../bench/bus/bench-bus.ts')
  await interruptible(async (signal) => {
    const start = performance.now()
    const options = { ...effort(quick), parts, actors, sets: [], signal, onNote: output.note }
    const rows: BusRow[] = []
    for await (const row of benchBus(options)) {
      output.data(row)
      rows.push(row)
    }
    for (const line of tables(rows)) output.text(line)
    output.data({ event: 'done', rows: rows.length, seconds: Math.round((performance.now() - start) / 1000) })
  })
}

const percent = (share: number): string => (100 * share).toFixed(1)
const whole = (x: number): string => x.toFixed(0)

function tables(rows: readonly BusRow[]): string[] {
  const scale = rows.filter((row) => row.row === 'scale')
  return [...scaleTable(scale), ...rows.flatMap((row) => (row.row === 'scale' ? [] : other(row)))]
}

function scaleTable(rows: readonly ScaleRow[]): string[] {
  if (rows.length === 0) return []
  const head = ['actors', 'completions/s', '% of ideal', 'cores: server', 'actors', 'asker', 'others', 'full']
  const costs = ['actors', 'CPU µs: server', 'actors', 'asker', 'bytes: log', 'server reads', 'server writes']
  const scales = rows.filter(({ share }) => share >= SCALES).at(-1)
  return [
    'Simulated model actors that one server feeds:',
    ...table(
      head,
      rows.map((r) => [
        r.actors,
        whole(r.completionsPerSecond),
        percent(r.share),
        ...[r.serverCores, r.actorCores, r.askerCores, r.otherCores].map((cores) => cores.toFixed(2)),
        r.saturated ?? '',
      ]),
    ),
    '',
    'What the bus costs per completion:',
    ...table(
      costs,
      rows.map((r) => [
        r.actors,
        ...[r.serverMicros, r.actorMicros, r.askerMicros, r.logBytes, r.serverReadBytes, r.serverWrittenBytes].map(
          whole,
        ),
      ]),
    ),
    '',
    `${percent(SCALES)} % of the ideal up to ${scales?.actors ?? 0} actors.`,
    '',
  ]
}

function other(row: Exclude<BusRow, ScaleRow>): string[] {
  switch (row.row) {
    case 'broadcast':
      return [
        `A version of ${whole(row.adapterBytes / 2 ** 20)} MB reaches ${row.actors} actors in ${row.processes} processes:`,
        ...table(
          ['ms', 'p50', 'p99', 'max', 'last actor', 'storing it'],
          [['', ...[row.p50, row.p99, row.max, row.lastP50, row.storeP50].map(whole)]],
        ),
        `  plain sockets: ${whole(row.boundPerProcess)} ms once for each process, ${whole(row.boundPerActor)} ms for each actor`,
        '',
      ]
    case 'overhead':
      return [
        `${row.steps} steps of the default run, medians of ${row.rounds} rounds:`,
        ...table(
          ['seconds over NATS', 'in memory', '% of wall time', '% of CPU time', 'server alone, %'],
          [
            [
              row.natsSeconds.toFixed(1),
              row.memorySeconds.toFixed(1),
              ...[row.wallShare, row.coreShare, row.serverShare].map(percent),
            ],
          ],
        ),
        '',
      ]
    case 'tap':
      return [
        `${row.steps} steps of the default run beside "visplay tap --follow --json", medians of ${row.rounds} rounds:`,
        ...table(
          ['seconds without', 'with', '% slower', "tap's CPU, % of the run's"],
          [[row.seconds.toFixed(1), row.tappedSeconds.toFixed(1), ...[row.slower, row.tapShare].map(percent)]],
        ),
        '',
      ]
  }
}
