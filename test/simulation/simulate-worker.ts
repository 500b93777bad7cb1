/** A thread of the simulation: plays the seeds that it is told to, one after the other. */
import { parentPort } from 'node:worker_threads'
import { addCounts, simulate, type Broken, type Story } from './simulation.ts'

/** Seeds `from` to `from + count - 1`. */
export interface Chunk {
  readonly from: number
  readonly count: number
}

export type Said =
  | { readonly event: 'failed'; readonly seed: number; readonly violations: readonly Broken[] }
  | { readonly event: 'played'; readonly seeds: number; readonly counts: Story['counts'] }

const port = parentPort
if (!port) throw new Error('this file is a thread of simulate-seeds.ts')
const say = (said: Said) => port.postMessage(said)
let seed = 0

const onLost = (error: unknown) => {
  const message = error instanceof Error ? (error.stack ?? error.message) : String(error)
  say({ event: 'failed', seed, violations: [{ invariant: 'whole', about: 'process', message }] })
}
process.on('uncaughtException', onLost)
process.on('unhandledRejection', onLost)

port.on('message', (chunk: Chunk) => void play(chunk).catch(onLost))

async function play({ from, count }: Chunk): Promise<void> {
  let counts: Story['counts'] | null = null
  for (seed = from; seed < from + count; seed++) {
    const story = await simulate(seed)
    if (story.violations.length > 0) say({ event: 'failed', seed, violations: story.violations })
    counts = addCounts(counts, story.counts)
  }
  say({ event: 'played', seeds: count, counts: counts! })
}
