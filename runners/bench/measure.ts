/** Clock and memory of measurements. */

export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b)
  const middle = sorted.length >> 1
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2
}

export interface Timed<T> {
  readonly value: T
  readonly seconds: number
  /** Processor time of all threads: comparable even while other programs use the machine. */
  readonly coreSeconds: number
}

export async function timed<T>(job: () => Promise<T>): Promise<Timed<T>> {
  const [start, before] = [performance.now(), process.cpuUsage()]
  const value = await job()
  const { user, system } = process.cpuUsage(before)
  return { value, seconds: (performance.now() - start) / 1000, coreSeconds: (user + system) / 1e6 }
}

/** Peak of the resident memory while `job` runs, in 2²⁰ bytes; the job must leave this thread free now and then. */
export async function withPeakMemory<T>(job: () => Promise<T>): Promise<{ value: T; peakMb: number }> {
  let peak = process.memoryUsage.rss()
  const look = () => void (peak = Math.max(peak, process.memoryUsage.rss()))
  const timer = setInterval(look, 20)
  try {
    const value = await job()
    look()
    return { value, peakMb: Math.round(peak / 2 ** 20) }
  } finally {
    clearInterval(timer)
  }
}

/** Rounded for people: four digits. */
export const digits = (x: number): number => Number(x.toPrecision(4))
