/** What the machine's matrix products give at best: the yardstick of every other figure. */
import { Graph } from '../../models/graph/graph.ts'
import { matmul } from '../../models/graph/ops.ts'
import { Session } from '../../models/runtime/session.ts'
import { f32 } from '../../models/tensor.ts'
import { median, timed } from './measure.ts'

export interface GemmRate {
  readonly dims: readonly [m: number, k: number, n: number]
  /** 10⁹ floating-point operations a second, float32, weights prepacked. */
  readonly gflops: number
  /** The same for a second of one core. */
  readonly gflopsPerCore: number
  /** Seconds of the fastest product. */
  readonly best: number
}

/** Median rate of [M, K] × [K, N] through onnxruntime on the CPU. */
export async function measureGemm(
  [m, k, n]: GemmRate['dims'],
  { threads, repeats }: { readonly threads: number; readonly repeats: number },
): Promise<GemmRate> {
  const graph = new Graph()
  const x = graph.input('x', 'float32', [m, k])
  const w = graph.initializer('w', f32(new Float32Array(k * n).fill(0.01), [k, n]))
  const session = await Session.create(graph, { y: matmul(x, w) }, { threads })
  try {
    const feeds = { x: f32(new Float32Array(m * k).fill(0.01), [m, k]) }
    await session.run(feeds)
    const runs = []
    for (let i = 0; i < repeats; i++) runs.push(await timed(() => session.run(feeds)))
    const rate = (seconds: readonly number[]) => (2 * m * k * n) / median(seconds) / 1e9
    return {
      dims: [m, k, n],
      gflops: rate(runs.map((r) => r.seconds)),
      gflopsPerCore: rate(runs.map((r) => r.coreSeconds)),
      best: Math.min(...runs.map((r) => r.seconds)),
    }
  } finally {
    await session.release()
  }
}
