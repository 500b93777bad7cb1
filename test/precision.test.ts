/** Rounded weights: how far they are from the exact ones, and that a row does not depend on those beside it. */
import { describe, expect, it } from 'vitest'
import { Graph, GraphError } from '../models/graph/graph.ts'
import { linearInt8, linearQ4 } from '../models/graph/ops.ts'
import { Parameters } from '../models/layers/parameters.ts'
import { type Precision, PRECISIONS, roundInt8, roundQ4 } from '../models/layers/precision.ts'
import { Session } from '../models/runtime/session.ts'
import { f32 } from '../models/tensor.ts'
import { rng } from './support/rng.ts'

const [INTO, OUT] = [200, 96]
const random = rng(5)
const noise = (length: number) => Float32Array.from({ length }, () => 2 * random() - 1)
const weight = f32(noise(OUT * INTO), [OUT, INTO])

/** x [rows, INTO] through the layer, as the graphs of a model have it. */
async function through(precision: Precision, x: Float32Array, threads = 1): Promise<Float32Array> {
  const graph = new Graph()
  const rows = graph.input('x', 'float32', ['M', INTO])
  const y = new Parameters(graph, { 'layer.weight': weight }, new Map(), null, { precision }).linear('layer', rows)
  const session = await Session.create(graph, { y }, { threads })
  const { y: out } = await session.run({ x: f32(x, [x.length / INTO, INTO]) })
  await session.release()
  return out!.data as Float32Array
}

const difference = (a: Float32Array, b: Float32Array): number => {
  const sum = (f: (i: number) => number) => b.reduce((n, _, i) => n + f(i) ** 2, 0)
  return Math.sqrt(sum((i) => a[i]! - b[i]!) / sum((i) => b[i]!))
}

describe('a linear layer of rounded weights', () => {
  it('is near the exact one: within 1 % in 8 bits, 10 % in 4', async () => {
    const x = noise(40 * INTO)
    const exact = await through('fp32', x)
    const error = { int8: difference(await through('int8', x), exact), q4: difference(await through('q4', x), exact) }
    expect(error.int8).toBeGreaterThan(1e-4)
    expect(error.int8).toBeLessThan(0.01)
    expect(error.q4).toBeGreaterThan(0.01)
    expect(error.q4).toBeLessThan(0.1)
  })

  it.each(PRECISIONS.filter((p) => p !== 'fp32'))(
    '%s: a row alone = the row in a batch, bit for bit',
    async (precision) => {
      const x = noise(40 * INTO)
      // One row far larger than the others: a scale that rows share would show.
      for (let i = 0; i < INTO; i++) x[3 * INTO + i]! *= 1000
      const together = await through(precision, x)
      for (const row of [0, 3, 17, 39]) {
        const alone = await through(precision, x.slice(row * INTO, (row + 1) * INTO))
        expect([...alone], `row ${row}`).toEqual([...together.subarray(row * OUT, (row + 1) * OUT)])
      }
      const few = await through(precision, x.slice(0, 7 * INTO))
      expect([...few]).toEqual([...together.subarray(0, 7 * OUT)])
    },
  )

  it('takes rows of zeros', async () => {
    for (const precision of PRECISIONS)
      expect((await through(precision, new Float32Array(2 * INTO))).every((y) => y === 0)).toBe(true)
  })

  it('names the shapes that do not fit', () => {
    const graph = new Graph()
    const x = graph.input('x', 'float32', ['M', INTO + 1])
    const [int8, q4] = [roundInt8(weight.data, [OUT, INTO]), roundQ4(weight.data, [OUT, INTO])]
    expect(() => linearInt8(x, graph.constant(int8.weight), graph.constant(int8.scales))).toThrow(
      new GraphError(
        'linearInt8: float32 [M, 201], int8 [200, 96], float32 [96] is not x [..., in], int8 [in, out], scales [out]',
      ),
    )
    expect(() => linearQ4(x, graph.constant(q4.weight), graph.constant(int8.scales), 32)).toThrow('uint8 [96, 7, 16]')
  })
})
