/** Every gradient rule against central finite differences, in one loop over the total op table. */
import { describe, expect, it } from 'vitest'
import { grad } from '../models/graph/autodiff.ts'
import { type Dims, Graph } from '../models/graph/graph.ts'
import { caseGraph, opCases, type OpCase } from '../models/graph/op-cases.ts'
import * as op from '../models/graph/ops.ts'
import { Session } from '../models/runtime/session.ts'
import { f32, i32, sizeOf } from '../models/tensor.ts'
import { rng } from './support/rng.ts'

/** Elements of an input that are looked at. */
const MOST = 30

async function check(name: string, c: OpCase): Promise<void> {
  const { graph, values, outputs, feeds } = caseGraph(c)
  if (c.refuses) return expect(() => grad(outputs['loss']!, values), name).toThrow(c.refuses)
  const session = await Session.create(graph, outputs, { threads: 1 })
  const analytic = await session.run(feeds)
  // Summed in float64: the differences are small beside the sum.
  const weights = feeds['weights']!.data as Float32Array
  const lossAt = async () => {
    const y = (await session.run(feeds)).y!.data as Float32Array
    return y.reduce((sum, x, k) => sum + x * weights[k]!, 0)
  }
  expect(analytic.loss!.data[0], name).toBeCloseTo(await lossAt(), 2)
  const h = 1 / 128
  for (const [i] of c.inputs.entries()) {
    const data = feeds[`x${i}`]!.data as Float32Array
    expect(analytic[`g${i}`]!.dims, `${name}: shape of gradient ${i}`).toEqual(feeds[`x${i}`]!.dims)
    for (let k = 0; k < data.length; k += Math.ceil(data.length / MOST)) {
      const x = data[k]!
      data[k] = x + h
      const up = await lossAt()
      data[k] = x - h
      const down = await lossAt()
      data[k] = x
      const expected = c.zero ? 0 : (up - down) / (2 * h)
      const actual = analytic[`g${i}`]!.data[k] as number
      expect(
        Math.abs(actual - expected),
        `${name}: d/dx${i}[${k}] = ${actual}, differences say ${expected}`,
      ).toBeLessThan(2e-3 + 5e-3 * Math.abs(expected))
    }
  }
  await session.release()
}

describe('gradients', () => {
  it.each(Object.entries(opCases))('%s', async (name, list) => {
    expect(list.length).toBeGreaterThan(0)
    for (const c of list) await check(name, c)
  })

  it('rows that come often are summed without loss, by any number of threads', async () => {
    const [count, rows, width] = [20_000, 3, 64]
    const graph = new Graph()
    const updates = graph.input('updates', 'float32', [count, width])
    const index = graph.input('index', 'int32', [count])
    const session = await Session.create(graph, { sum: op.scatterAdd(index, updates, rows) }, { threads: 4 })
    // Small integers: every order of addition gives the same sum.
    const values = Float32Array.from({ length: count * width }, (_, i) => (i % 7) - 2)
    const expected = new Float32Array(rows * width)
    for (const [i, value] of values.entries()) expected[(Math.floor(i / width) % rows) * width + (i % width)]! += value
    const feeds = {
      updates: f32(values, [count, width]),
      index: i32(
        Array.from({ length: count }, (_, i) => i % rows),
        [count],
      ),
    }
    for (let time = 0; time < 5; time++) expect((await session.run(feeds)).sum!.data).toEqual(expected)
    await session.release()
  })

  it.each([
    [2, 5, 7, 3],
    [2, 70, 600, 20],
  ])('attention alone = attention with a gradient (%i × %i over %i, size %i)', async (batch, n, t, size) => {
    const graph = new Graph()
    const random = rng(3)
    const input = (name: string, dims: number[]) => graph.input(name, 'float32', dims)
    const q = input('q', [batch, n, 3 * size])
    const [k, v] = [input('k', [batch, t, 3 * size]), input('v', [batch, t, 3 * size])]
    const out = op.attention(q, k, v, null, { heads: 3, kvHeads: 3 })
    const [gq] = grad(op.reduceSum(op.mul(out, out)), [q])
    const feeds = Object.fromEntries(
      Object.entries({ q, k, v }).map(([name, { dims }]) => {
        const own = dims.map(Number)
        return [
          name,
          f32(
            Float32Array.from({ length: sizeOf(own) }, () => 4 * random() - 2),
            own,
          ),
        ]
      }),
    )
    const [alone, both] = [await Session.create(graph, { out }), await Session.create(graph, { out, gq: gq! })]
    const [a, b] = [await alone.run(feeds), await both.run(feeds)].map((r) => [...(r.out!.data as Float32Array)])
    expect(a!.length).toBe(batch * n * 3 * size)
    const errors = a!.map((x, i) => Math.abs(x - b![i]!))
    expect(Math.max(...errors)).toBeLessThan(1e-5)
    await Promise.all([alone.release(), both.release()])
  })

  it('serves symbolic sizes from one session', async () => {
    const graph = new Graph()
    const dims: Dims = ['I', 'N', 6]
    const x = graph.input('x', 'float32', dims)
    const w = graph.input('w', 'float32', [4, 6])
    const heads = op.transpose(op.reshape(op.linear(op.reshape(x, ['I*N', 6]), w), ['I', 'N', 2, 2]), [0, 2, 1, 3])
    const scores = op.softmax(op.matmul(heads, heads, { transB: true }))
    const loss = op.reduceSum(op.mul(scores, scores))
    const [gw] = grad(loss, [w])
    const session = await Session.create(graph, { loss, gw: gw! }, { threads: 1 })
    for (const [i, n] of [
      [1, 2],
      [3, 5],
    ] as const) {
      const result = await session.run({
        x: f32(new Float32Array(i * n * 6).fill(0.1), [i, n, 6]),
        w: f32(new Float32Array(24).fill(0.2), [4, 6]),
      })
      // Equal tokens attend evenly: every row of scores is 1/n.
      expect(result.loss!.data[0]).toBeCloseTo((i * 2 * n * n) / (n * n), 4)
      expect(result.gw!.dims).toEqual([4, 6])
    }
    await session.release()
  })
})
