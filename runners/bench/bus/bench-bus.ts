/** The measurements of `visplay bench --bus`: parts by name, rows as they are known. */
import { measureBroadcast, type BroadcastRow } from './broadcast.ts'
import { DefaultRun } from './default-run.ts'
import { Fleet } from './fleet.ts'
import { measurePaired, type OverheadRow, type TapRow } from './paired-runs.ts'
import type { BusPart } from './parts.ts'
import { usageOf } from './proc.ts'
import { SCALE, sweep, type ScaleRow, type ScaleSettings } from './scale.ts'

export type BusRow = ScaleRow | BroadcastRow | OverheadRow | TapRow

export interface BusBenchOptions {
  readonly parts: readonly BusPart[]
  /** Simulated model actors of the broadcast, and the most of the sweep unless more still scale. */
  readonly actors: number
  readonly processes: number
  readonly scale: Omit<ScaleSettings, 'actors'>
  readonly adapterBytes: number
  readonly versions: number
  readonly steps: number
  readonly rounds: number
  /** Settings of the default run that differ; for small runs. */
  readonly sets: readonly string[]
  readonly signal: AbortSignal
  readonly onNote: (line: string) => void
}

const FULL = { scale: SCALE, versions: 12, steps: 20, rounds: 3 } as const
const QUICK = { scale: { ...SCALE, batches: 15 }, versions: 3, steps: 5, rounds: 1 } as const

export type Effort = Pick<BusBenchOptions, 'scale' | 'versions' | 'steps' | 'rounds' | 'adapterBytes' | 'processes'>

/** 10 MB of adapter, four processes; how often things are done. */
export const effort = (quick: boolean): Effort => ({
  ...(quick ? QUICK : FULL),
  adapterBytes: 10 * 2 ** 20,
  processes: 4,
})

/** How far a sweep goes while it still scales, beyond what was asked for. */
const BEYOND = 4

export async function* benchBus(options: BusBenchOptions): AsyncGenerator<BusRow> {
  const { parts, processes, actors, steps, rounds, sets, signal, onNote } = options
  await usageOf(process.pid) // Refused at once where there is no /proc.
  const wants = (part: BusPart) => parts.includes(part)
  if (wants('scale') || wants('broadcast')) {
    const fleet = await Fleet.start(processes, onNote)
    try {
      const limits = { most: actors, beyond: BEYOND * actors, signal, onNote }
      if (wants('scale')) yield* sweep(fleet, options.scale, limits)
      if (wants('broadcast')) yield await measureBroadcast(fleet, options)
    } finally {
      await fleet.close()
    }
  }
  if (!wants('overhead') && !wants('tap')) return
  const play = await DefaultRun.open({ steps, sets, signal, onNote })
  try {
    yield* measurePaired(play, { steps, rounds, overhead: wants('overhead'), tap: wants('tap'), onNote })
  } finally {
    await play.close()
  }
}
