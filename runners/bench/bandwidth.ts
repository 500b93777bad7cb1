/** How fast the machine's memory is read: the bound of whatever touches every weight for few rows. */
import { once } from 'node:events'
import { availableParallelism } from 'node:os'
import { Worker } from 'node:worker_threads'
import { measureGemm } from './gemm.ts'

/** Larger than the caches of processors. */
const BYTES = 2 ** 28

export interface Bandwidth {
  /** 10⁹ bytes a second that a product of one row with a large matrix reads. */
  readonly product: number
  /** 10⁹ bytes a second that copies in several threads read and write, together. */
  readonly copy: number
}

/** The best of several runs each: whatever else runs on the machine only takes away. */
export async function measureBandwidth(how: {
  readonly threads: number
  readonly repeats: number
}): Promise<Bandwidth> {
  const [k, n] = [4096, BYTES / 4 / 4096]
  const { best } = await measureGemm([1, k, n], how)
  return { product: BYTES / best / 1e9, copy: await copyRate(how) }
}

async function copyRate({ threads, repeats }: { readonly threads: number; readonly repeats: number }): Promise<number> {
  const count = threads || availableParallelism()
  const bytes = BYTES / count - ((BYTES / count) % 8)
  const file = new URL('./copy-worker.mjs', import.meta.url)
  const workers = Array.from({ length: count }, () => new Worker(file, { workerData: { bytes } }))
  try {
    await Promise.all(workers.map((worker) => once(worker, 'message')))
    let best = Infinity
    for (let i = 0; i < repeats; i++) {
      const start = performance.now()
      const copied = workers.map((worker) => once(worker, 'message'))
      for (const worker of workers) worker.postMessage('copy')
      await Promise.all(copied)
      best = Math.min(best, (performance.now() - start) / 1000)
    }
    return (2 * bytes * count) / best / 1e9
  } finally {
    await Promise.all(workers.map((worker) => worker.terminate()))
  }
}
