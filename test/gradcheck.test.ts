/** Every gradient rule against central finite differences, in one loop over the total op table. */
import { describe, expect, it } from 'vitest'
import { grad } from '../models/graph/autodiff.ts'
import { type Dims, Graph, type Value } from '../models/graph/graph.ts'
import type { OpName } from '../models/graph/op-attrs.ts'
import * as op from '../models/graph/ops.ts'
import { Session } from '../models/runtime/session.ts'
import { f32, i32, sizeOf, type TensorMap } from '../models/tensor.ts'
import { rng } from './support/rng.ts'

interface Case {
  /** Shapes of the float32 inputs, differentiated one by one. */
  readonly inputs: readonly (readonly number[])[]
  readonly build: (values: readonly Value[], graph: Graph) => Value
  /** Range of the random inputs; default [-1, 1]. */
  readonly range?: readonly [number, number]
  /** Rules that are zero by definition. */
  readonly zero?: boolean
}

const ints = (graph: Graph, values: number[], dims: number[]) => graph.constant(i32(values, dims))
const pair = (f: (a: Value, b: Value) => Value, range?: [number, number]): Case[] => [
  {
    inputs: [
      [2, 3],
      [2, 3],
    ],
    build: ([a, b]) => f(a!, b!),
    ...(range && { range }),
  },
  {
    inputs: [
      [2, 1, 3],
      [4, 1],
    ],
    build: ([a, b]) => f(a!, b!),
    ...(range && { range }),
  },
  { inputs: [[3], []], build: ([a, b]) => f(a!, b!), ...(range && { range }) },
]
const one = (f: (x: Value) => Value, range?: [number, number], zero = false): Case[] => [
  { inputs: [[2, 3]], build: ([x]) => f(x!), ...(range && { range }), zero },
]
const flag = (f: (a: Value, b: Value) => Value): Case[] => [
  { inputs: [[2, 3], [3]], build: ([a, b]) => op.cast(f(a!, b!), 'float32'), zero: true },
]

const cases: { [K in OpName]: Case[] } = {
  add: pair(op.add),
  sub: pair(op.sub),
  mul: pair(op.mul),
  div: pair(op.div, [0.5, 2]),
  minimum: pair(op.minimum),
  maximum: pair(op.maximum),
  less: flag(op.less),
  greaterOrEqual: flag(op.greaterOrEqual),
  equal: flag(op.equal),
  and: flag((a, b) => op.logicalAnd(op.less(a, b), op.greater(a, b))),
  not: flag((a, b) => op.logicalNot(op.less(a, b))),
  neg: one(op.neg),
  exp: one(op.exp),
  log: one(op.log, [0.5, 2]),
  sqrt: one(op.sqrt, [0.5, 2]),
  tanh: one(op.tanh),
  sigmoid: one(op.sigmoid, [-4, 4]),
  erf: [...one(op.erf, [-3, 3]), ...one(op.gelu, [-3, 3])],
  silu: one(op.silu, [-4, 4]),
  geluTanh: one(op.geluTanh, [-3, 3]),
  stopGradient: one(op.stopGradient, undefined, true),
  cast: one((x) => op.cast(op.cast(x, 'int32'), 'float32'), [0.1, 0.9], true),
  where: [
    { inputs: [[2, 3], [3]], build: ([a, b], g) => op.where(op.equal(ints(g, [1, 0, 1], [3]), 1), a!, b!) },
    { inputs: [[2, 3]], build: ([a], g) => op.where(op.equal(ints(g, [1, 0], [2, 1]), 1), a!, 7) },
  ],
  matmul: [
    {
      inputs: [
        [2, 3],
        [3, 4],
      ],
      build: ([a, b]) => op.matmul(a!, b!),
    },
    {
      inputs: [
        [2, 5, 3],
        [4, 3],
      ],
      build: ([a, b]) => op.linear(a!, b!),
    },
    {
      inputs: [
        [2, 5, 3],
        [3, 4],
      ],
      build: ([a, b]) => op.matmul(a!, b!, { alpha: 0.5 }),
    },
    {
      inputs: [
        [2, 2, 3, 5],
        [2, 2, 3, 4],
      ],
      build: ([a, b]) => op.matmul(a!, b!, { transA: true }),
    },
    {
      inputs: [
        [2, 3, 5],
        [2, 4, 3],
      ],
      build: ([a, b]) => op.matmul(a!, b!, { transA: true, transB: true, alpha: 2 }),
    },
    {
      inputs: [
        [2, 1, 3, 5],
        [4, 5, 2],
      ],
      build: ([a, b]) => op.matmul(a!, b!),
    },
  ],
  softmax: one(op.softmax, [-2, 2]),
  logSoftmax: one(op.logSoftmax, [-2, 2]),
  reduceSum: [
    { inputs: [[2, 3, 4]], build: ([x]) => op.reduceSum(x!, { axes: [1] }) },
    { inputs: [[2, 3, 4]], build: ([x]) => op.reduceSum(x!, { axes: [-1, 0], keepdims: true }) },
  ],
  reduceMean: one((x) => op.reduceMean(x, { axes: [-1] })),
  reduceMax: one((x) => op.reduceMax(x, { axes: [0] })),
  cumsum: one((x) => op.cumsum(x, -1)),
  argmax: [{ inputs: [[2, 3]], build: ([x]) => op.cast(op.argmax(x!), 'float32'), zero: true }],
  reshape: one((x) => op.reshape(x, [3, 1, 2])),
  transpose: [{ inputs: [[2, 3, 4]], build: ([x]) => op.transpose(x!, [2, 0, 1]) }],
  broadcastTo: [{ inputs: [[2, 1, 3]], build: ([x]) => op.broadcastTo(x!, [5, 2, 4, 3]) }],
  concat: [
    {
      inputs: [
        [2, 3],
        [2, 1],
        [2, 2],
      ],
      build: (xs) => op.concat(xs, -1),
    },
  ],
  slice: one((x) => op.slice(x, 1, 1, 3)),
  pad: one((x) => op.pad(x, 0, 1, 2)),
  gather: [{ inputs: [[4, 3]], build: ([x], g) => op.gather(x!, ints(g, [1, 3, 1, 0, 1, 2], [2, 3])) }],
  nonzero: [
    {
      inputs: [[4]],
      build: ([x], g) => op.reduceSum(op.gather(x!, op.nonzero(op.equal(ints(g, [1, 0, 1, 1], [4]), 1), 'K'))),
    },
  ],
  scatterAdd: [{ inputs: [[2, 3, 2]], build: ([x], g) => op.scatterAdd(ints(g, [1, 3, 1, 0, 1, 2], [2, 3]), x!, 5) }],
  pick: [{ inputs: [[2, 3, 4]], build: ([x], g) => op.pick(x!, ints(g, [1, 3, 1, 0, 1, 2], [2, 3])) }],
  unpick: [{ inputs: [[2, 3]], build: ([x], g) => op.unpick(x!, ints(g, [1, 3, 1, 0, 1, 2], [2, 3]), 4) }],
  arange: one((x) => op.add(op.mul(x, 0), op.cast(op.arange(x, 1), 'float32')), undefined, true),
  layerNorm: [{ inputs: [[2, 3, 8], [8], [8]], build: ([x, w, b]) => op.layerNorm(x!, w!, b!, 1e-5) }],
  rmsNorm: [{ inputs: [[2, 3, 8], [8]], build: ([x, w]) => op.rmsNorm(x!, w!, 1e-5) }],
  rotary: [false, true].map((inverse) => ({
    inputs: [[2, 3, 8]],
    build: ([x]: readonly Value[], g: Graph) => {
      const angles = Array.from({ length: 10 }, (_, i) => i * 0.3)
      const table = (f: (a: number) => number) => g.constant(f32(angles.map(f), [5, 2]))
      return op.rotary(x!, ints(g, [0, 4, 2, 1, 1, 3], [2, 3]), table(Math.cos), table(Math.sin), 2, inverse)
    },
  })),
  attention: [
    {
      inputs: [
        [2, 3, 8],
        [2, 5, 4],
        [2, 5, 4],
      ],
      build: ([q, k, v], g) => {
        const bias = g.constant(f32([0, -1, 0, -1e9, 0, ...new Array<number>(25).fill(0.5)], [2, 3, 5]))
        return op.attention(q!, k!, v!, bias, { heads: 4, kvHeads: 2 })
      },
      range: [-2, 2],
    },
    {
      inputs: [
        [2, 3, 6],
        [2, 3, 6],
        [2, 3, 6],
      ],
      build: ([q, k, v]) => op.attention(q!, k!, v!, null, { heads: 3, kvHeads: 3 }),
      range: [-2, 2],
    },
  ],
  tokenLogprob: [
    {
      inputs: [
        [3, 4],
        [5, 4],
      ],
      build: ([x, w], g) => op.tokenLogprob(x!, w!, ints(g, [4, 0, 4], [3])).logp,
    },
  ],
}

async function check(name: string, c: Case): Promise<void> {
  const random = rng(name.length * 7919 + c.inputs.length)
  const [low, high] = c.range ?? [-1, 1]
  const graph = new Graph()
  const values = c.inputs.map((dims, i) => graph.input(`x${i}`, 'float32', dims))
  const y = c.build(values, graph)
  const weights = f32(
    Array.from({ length: sizeOf(y.dims as number[]) }, () => random() * 2 - 1),
    y.dims as number[],
  )
  const loss = op.reduceSum(op.mul(y, graph.constant(weights)))
  const grads = grad(loss, values)
  const outputs = Object.fromEntries([['loss', loss], ...grads.map((g, i) => [`g${i}`, g] as const)])
  const session = await Session.create(graph, outputs, { threads: 1 })
  const feeds: TensorMap = Object.fromEntries(
    c.inputs.map((dims, i) => [
      `x${i}`,
      f32(
        Array.from({ length: sizeOf(dims) }, () => low + (high - low) * random()),
        dims,
      ),
    ]),
  )
  const analytic = await session.run(feeds)
  const lossAt = async () => (await session.run(feeds)).loss!.data[0] as number
  const h = 1 / 128
  for (const [i] of c.inputs.entries()) {
    const data = feeds[`x${i}`]!.data as Float32Array
    expect(analytic[`g${i}`]!.dims, `${name}: shape of gradient ${i}`).toEqual(c.inputs[i])
    for (let k = 0; k < data.length; k++) {
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
  it.each(Object.entries(cases))('%s', async (name, list) => {
    expect(list.length).toBeGreaterThan(0)
    for (const c of list) await check(name, c)
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
