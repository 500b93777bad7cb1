/** Simulations of many seeds, spread over the cores of this machine. */
import { availableParallelism } from 'node:os'
import { Worker } from 'node:worker_threads'
import type { Chunk, Said } from './simulate-worker.ts'
import { addCounts, type Broken, type Story } from './simulation.ts'

export interface SeedFailure extends Broken {
  readonly seed: number
}

export interface SeedsOptions {
  /** The first seed. */
  readonly from: number
  readonly count: number
  /** Told at once of each violation. */
  readonly onFailure?: (failure: SeedFailure) => void
  readonly onProgress?: (seeds: number) => void
  /** Ends it early: what has been played by then counts. */
  readonly signal?: AbortSignal
  /** As many as there are cores when left out. */
  readonly threads?: number
}

export interface SeedsResult {
  /** Seeds that were played. */
  readonly seeds: number
  readonly failures: readonly SeedFailure[]
  readonly seconds: number
  /** What went wrong on the way, over all seeds: shows that misfortune really happened. */
  readonly counts: Story['counts'] | null
}

const CHUNK = 20
/** MB. Almost everything dies young: a larger nursery halves the time of the garbage collector. */
const NURSERY = 64

/** Plays `count` seeds; the line that replays one of them is `replayCommand`. */
export async function simulateSeeds(options: SeedsOptions): Promise<SeedsResult> {
  const { from, count, onFailure, onProgress, signal } = options
  const begun = performance.now()
  const failures: SeedFailure[] = []
  let next = from
  let played = 0
  let counts: Story['counts'] | null = null
  const chunk = (): Chunk | null => {
    const first = next
    next = Math.min(from + count, first + CHUNK)
    return first < next && !signal?.aborted ? { from: first, count: next - first } : null
  }
  const onSaid = (said: Said): void => {
    if (said.event === 'played') {
      played += said.seeds
      counts = addCounts(counts, said.counts)
      onProgress?.(played)
      return
    }
    for (const violation of said.violations) {
      const failure = { seed: said.seed, ...violation }
      failures.push(failure)
      onFailure?.(failure)
    }
  }
  const threads = Math.min(options.threads ?? availableParallelism(), Math.ceil(count / CHUNK))
  await Promise.all(Array.from({ length: threads }, () => work(chunk, onSaid, signal)))
  return { seeds: played, failures, seconds: (performance.now() - begun) / 1000, counts }
}

/** One thread, until there are no chunks left or the signal aborts. */
async function work(chunk: () => Chunk | null, onSaid: (said: Said) => void, signal?: AbortSignal): Promise<void> {
  const worker = new Worker(new URL('./simulate-worker.mjs', import.meta.url), {
    resourceLimits: { maxYoungGenerationSizeMb: NURSERY },
  })
  try {
    await new Promise<void>((resolve, reject) => {
      const go = () => {
        const seeds = chunk()
        if (seeds) worker.postMessage(seeds)
        else resolve()
      }
      worker.on('message', (said: Said) => {
        onSaid(said)
        if (said.event === 'played') go()
      })
      worker.on('error', reject)
      signal?.addEventListener('abort', () => resolve(), { once: true })
      go()
    })
  } finally {
    await worker.terminate()
  }
}

export const replayCommand = (seed: number): string => `node --import tsx test/simulation/simulate.ts --seed ${seed}`
