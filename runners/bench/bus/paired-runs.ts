/**
 * What the bus costs the default run, and what a tap costs it: the same steps over NATS, over the bus in memory, and over
 * NATS with a tap beside it, in turn, because the machine is not equally fast at all times. Ratios are of the runs of one
 * round; medians are over rounds.
 */
import { createMemoryNet } from '../../../bus/memory.ts'
import { digits, median } from '../measure.ts'
import { withRun } from './bench-server.ts'
import type { DefaultRun, Took } from './default-run.ts'
import { usageOf, usedBetween } from './proc.ts'
import { startTap } from './tap-process.ts'

export interface PairedSettings {
  readonly steps: number
  readonly rounds: number
  readonly overhead: boolean
  readonly tap: boolean
  readonly onNote: (line: string) => void
}

/** Medians; shares are of the run over NATS. */
export interface OverheadRow {
  readonly row: 'overhead'
  readonly steps: number
  readonly rounds: number
  readonly natsSeconds: number
  readonly memorySeconds: number
  /** Of the wall time: what is saved in memory. */
  readonly wallShare: number
  /** Of the processor time of all processes, the server's included: the same. */
  readonly coreShare: number
  /** Of the processor time of all processes: the server's alone. */
  readonly serverShare: number
}

/** Medians. */
export interface TapRow {
  readonly row: 'tap'
  readonly steps: number
  readonly rounds: number
  readonly seconds: number
  readonly tappedSeconds: number
  /** How much longer the steps take with the tap, as a share. */
  readonly slower: number
  /** Processor time of the tap as a share of that of the run. */
  readonly tapShare: number
}

const WAYS = ['memory', 'nats', 'tapped'] as const
type Way = (typeof WAYS)[number]

interface Round extends Took {
  /** Processor time of the server, and of the tap. */
  readonly server: number
  readonly tap: number
}
type Rounds = Readonly<Record<Way, Round[]>>

export async function* measurePaired(play: DefaultRun, settings: PairedSettings): AsyncGenerator<OverheadRow | TapRow> {
  const { rounds, overhead, tap, onNote } = settings
  const ways = WAYS.filter((way) => way === 'nats' || (way === 'memory' ? overhead : tap))
  const took: Rounds = { memory: [], nats: [], tapped: [] }
  onNote('a run that warms up')
  await once(play, 'memory')
  for (let round = 1; round <= rounds; round++) {
    // There and back again, so that a machine that becomes slower or faster counts against none of them.
    for (const way of round % 2 === 1 ? ways : ways.toReversed()) {
      onNote(`round ${round} of ${rounds}: ${LABELS[way]}`)
      took[way].push(await once(play, way))
    }
  }
  if (overhead) yield overheadRow(settings, took)
  if (tap) yield tapRow(settings, took)
}

const LABELS: Readonly<Record<Way, string>> = {
  memory: 'the bus in memory',
  nats: 'NATS',
  tapped: 'NATS, and a tap that listens',
}

async function once(play: DefaultRun, way: Way): Promise<Round> {
  const run = play.nextRun()
  if (way === 'memory') {
    const net = createMemoryNet(run)
    return { ...(await play.play(net).finally(() => net.close())), server: 0, tap: 0 }
  }
  return withRun(run, 'files', async (bench) => {
    const tap = way === 'tapped' ? await startTap(bench) : null
    try {
      const before = await usageOf(bench.serverPid)
      const took = await play.play(bench.net)
      const { coreSeconds: server } = usedBetween(before, await usageOf(bench.serverPid))
      return { ...took, server, tap: (await tap?.used()) ?? 0 }
    } finally {
      await tap?.end()
    }
  })
}

function overheadRow({ steps, rounds }: PairedSettings, { nats, memory }: Rounds): OverheadRow {
  const overRounds = (of: (over: Round, without: Round) => number) =>
    digits(median(nats.map((n, i) => of(n, memory[i]!))))
  return {
    row: 'overhead',
    steps,
    rounds,
    natsSeconds: overRounds((n) => n.seconds),
    memorySeconds: overRounds((_, m) => m.seconds),
    wallShare: overRounds((n, m) => 1 - m.seconds / n.seconds),
    coreShare: overRounds((n, m) => 1 - m.coreSeconds / (n.coreSeconds + n.server)),
    serverShare: overRounds((n) => n.server / (n.coreSeconds + n.server)),
  }
}

function tapRow({ steps, rounds }: PairedSettings, { nats, tapped }: Rounds): TapRow {
  const overRounds = (of: (plain: Round, heard: Round) => number) =>
    digits(median(nats.map((n, i) => of(n, tapped[i]!))))
  return {
    row: 'tap',
    steps,
    rounds,
    seconds: overRounds((n) => n.seconds),
    tappedSeconds: overRounds((_, t) => t.seconds),
    slower: overRounds((n, t) => t.seconds / n.seconds - 1),
    tapShare: overRounds((_, t) => t.tap / (t.coreSeconds + t.server)),
  }
}
