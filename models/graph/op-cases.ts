/**
 * Small graphs of every op: what its gradient rule is checked on (test/gradcheck.test.ts), and what a device is checked on
 * (runners/device/op-checks.ts).
 */
import { f32, type HostTensor, i32, sizeOf, type TensorMap } from '../tensor.ts'
import { randomKey, uniform } from '../generate/random.ts'
import { roundInt8, roundQ4 } from '../layers/precision.ts'
import { grad } from './autodiff.ts'
import { type Dims, Graph, type Value } from './graph.ts'
import type { OpName } from './op-attrs.ts'
import * as op from './ops.ts'

export interface OpCase {
  /** Shapes of the float32 inputs, differentiated one by one; symbols have their size in `sizes`. */
  readonly inputs: readonly Dims[]
  /** int32 inputs. */
  readonly indices?: readonly HostTensor<'int32'>[]
  readonly build: (values: readonly Value[], indices: readonly Value[], graph: Graph) => Value
  /** Range of the random inputs; default [-1, 1]. */
  readonly range?: readonly [number, number]
  /** Rules that are zero by definition. */
  readonly zero?: boolean
  /** What an op says that has no gradient. */
  readonly refuses?: RegExp
  /** How far devices may be apart, |a − b| / (1 + |b|): some kernels round x as well, others do not. Default 1e-4. */
  readonly tolerance?: number
  readonly sizes?: Readonly<Record<string, number>>
}

const pair = (f: (a: Value, b: Value) => Value, range?: [number, number]): OpCase[] => [
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
const one = (f: (x: Value) => Value, range?: [number, number], zero = false): OpCase[] => [
  { inputs: [[2, 3]], build: ([x]) => f(x!), ...(range && { range }), zero },
]
/** Longer than what one workgroup of a device takes in a go. */
const wide = (f: (x: Value) => Value, range?: readonly [number, number], zero = false): OpCase[] => [
  { inputs: [[3, 300]], build: ([x]) => f(x!), ...(range && { range }), zero },
]
const flag = (f: (a: Value, b: Value) => Value): OpCase[] => [
  { inputs: [[2, 3], [3]], build: ([a, b]) => op.cast(f(a!, b!), 'float32'), zero: true },
]

/** An op of rounded weights over x [2, 3, 4]. */
const rounded = (name: 'linearInt8' | 'linearQ4', build: (x: Value, graph: Graph) => Value): OpCase[] => [
  {
    inputs: [[2, 3, 4]],
    build: ([x], _indices, graph) => build(x!, graph),
    tolerance: 2e-2,
    refuses: new RegExp(`${name} has no gradient: quantised weights are for sampling`),
  },
]
const ROUNDED = Float32Array.from({ length: 20 }, (_, i) => (i - 9.5) / 10)

/** Rows of a table, one of them twice. */
const ROWS = i32([1, 3, 1, 0, 1, 2], [2, 3])

/** Every op under conditions that reach all of its rules; total, so that an op without a case does not compile. */
export const opCases: { [K in OpName]: OpCase[] } = {
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
  exp: [...one(op.exp), ...wide(op.exp)],
  log: one(op.log, [0.5, 2]),
  sqrt: one(op.sqrt, [0.5, 2]),
  tanh: one(op.tanh),
  sigmoid: one(op.sigmoid, [-4, 4]),
  erf: [...one(op.erf, [-3, 3]), ...one(op.gelu, [-3, 3])],
  silu: one(op.silu, [-4, 4]),
  geluTanh: one(op.geluTanh, [-3, 3]),
  stopGradient: one(op.stopGradient, undefined, true),
  after: one((x) => op.mul(op.after(x, [op.mul(x, 2), op.exp(x)]), x)),
  cast: one((x) => op.cast(op.cast(x, 'int32'), 'float32'), [0.1, 0.9], true),
  where: [
    {
      inputs: [[2, 3], [3]],
      indices: [i32([1, 0, 1], [3])],
      build: ([a, b], [c]) => op.where(op.equal(c!, 1), a!, b!),
    },
    { inputs: [[2, 3]], indices: [i32([1, 0], [2, 1])], build: ([a], [c]) => op.where(op.equal(c!, 1), a!, 7) },
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
        [2, 40, 72],
        [68, 72],
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
  softmax: [...one(op.softmax, [-2, 2]), ...wide(op.softmax, [-4, 4])],
  logSoftmax: [...one(op.logSoftmax, [-2, 2]), ...wide(op.logSoftmax, [-4, 4])],
  reduceSum: [
    { inputs: [[2, 3, 4]], build: ([x]) => op.reduceSum(x!, { axes: [1] }) },
    { inputs: [[2, 3, 4]], build: ([x]) => op.reduceSum(x!, { axes: [-1, 0], keepdims: true }) },
    ...wide((x) => op.reduceSum(x, { axes: [1] })),
  ],
  reduceMean: [one, wide].flatMap((cases) => cases((x) => op.reduceMean(x, { axes: [-1] }))),
  reduceMax: [
    ...one((x) => op.reduceMax(x, { axes: [0] })),
    // Far enough apart for differences not to change which one is the largest.
    ...wide((x) => op.reduceMax(x, { axes: [1] }), [-100, 100]),
  ],
  cumsum: [one, wide].flatMap((cases) => cases((x) => op.cumsum(x, -1))),
  argmax: [one, wide].flatMap((cases) => cases((x) => op.cast(op.argmax(x), 'float32'), undefined, true)),
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
  slice: [
    ...one((x) => op.slice(x, 1, 1, 3)),
    { inputs: [[4, 3]], indices: [ROWS], build: ([x], [i]) => op.gather(x!, op.slice(i!, 1, 1, 3)) },
  ],
  pad: one((x) => op.pad(x, 0, 1, 2)),
  gather: [{ inputs: [[4, 3]], indices: [ROWS], build: ([x], [i]) => op.gather(x!, i!) }],
  nonzero: [
    {
      inputs: [[4]],
      indices: [i32([1, 0, 1, 1], [4])],
      build: ([x], [i]) => op.reduceSum(op.gather(x!, op.nonzero(op.equal(i!, 1), 'K'))),
    },
  ],
  scatterAdd: [
    { inputs: [[2, 3, 2]], indices: [ROWS], build: ([x], [i]) => op.scatterAdd(i!, x!, 5) },
    // As many on one row as threads could write at once.
    {
      inputs: [[64, 4]],
      indices: [
        i32(
          Array.from({ length: 64 }, (_, i) => i % 2),
          [64],
        ),
      ],
      build: ([x], [i]) => op.scatterAdd(i!, x!, 2),
    },
    {
      inputs: [
        [3, 2],
        ['N', 1],
      ],
      indices: [i32([1, 0, 1], [3])],
      sizes: { N: 4 },
      build: ([x, y], [i]) => op.mul(op.scatterAdd(i!, x!, 'N'), y!),
    },
  ],
  pick: [{ inputs: [[2, 3, 4]], indices: [ROWS], build: ([x], [i]) => op.pick(x!, i!) }],
  unpick: [
    { inputs: [[2, 3]], indices: [ROWS], build: ([x], [i]) => op.unpick(x!, i!, 4) },
    {
      inputs: [[2, 3], ['N']],
      indices: [ROWS],
      sizes: { N: 5 },
      build: ([x, y], [i]) => op.mul(op.unpick(x!, i!, 'N'), y!),
    },
  ],
  arange: [
    ...one((x) => op.add(op.mul(x, 0), op.cast(op.arange(x, 1), 'float32')), undefined, true),
    {
      inputs: [['N', 2]],
      sizes: { N: 3 },
      zero: true,
      build: ([x]) => op.add(op.mul(x!, 0), op.cast(op.reshape(op.arange(x!, 0), ['N', 1]), 'float32')),
    },
  ],
  layerNorm: [8, 300].map((d) => ({
    inputs: [[2, 3, d], [d], [d]],
    build: ([x, w, b]: readonly Value[]) => op.layerNorm(x!, w!, b!, 1e-5),
  })),
  rmsNorm: [8, 300].map((d) => ({
    inputs: [[2, 3, d], [d]],
    build: ([x, w]: readonly Value[]) => op.rmsNorm(x!, w!, 1e-5),
  })),
  rotary: [false, true].map((inverse) => ({
    inputs: [[2, 3, 8]],
    indices: [i32([0, 4, 2, 1, 1, 3], [2, 3])],
    build: ([x]: readonly Value[], [positions]: readonly Value[], g: Graph) => {
      const angles = Array.from({ length: 10 }, (_, i) => i * 0.3)
      const table = (f: (a: number) => number) => g.constant(f32(angles.map(f), [5, 2]))
      return op.rotary(x!, positions!, table(Math.cos), table(Math.sin), 2, inverse)
    },
  })),
  attention: [
    {
      inputs: [
        [2, 3, 8],
        [2, 5, 4],
        [2, 5, 4],
      ],
      build: ([q, k, v], _indices, g) => {
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
    // Of a number of keys that is not known.
    {
      inputs: [
        [2, 'N', 8],
        [2, 'N', 8],
        [2, 'N', 8],
      ],
      sizes: { N: 5 },
      build: ([q, k, v]) => op.attention(q!, k!, v!, null, { heads: 2, kvHeads: 2 }),
      range: [-2, 2],
    },
    {
      inputs: [
        [1, 'N', 32],
        [1, 'N', 32],
        [1, 'N', 32],
      ],
      sizes: { N: 150 },
      build: ([q, k, v]) => op.attention(q!, k!, v!, null, { heads: 2, kvHeads: 2 }),
      range: [-2, 2],
    },
  ],
  tokenLogprob: [
    {
      inputs: [
        [3, 4],
        [5, 4],
      ],
      indices: [i32([4, 0, 4], [3])],
      build: ([x, w], [targets]) => op.tokenLogprob(x!, w!, targets!).logp,
    },
  ],
  linearInt8: rounded('linearInt8', (x, g) => {
    const { weight, scales } = roundInt8(ROUNDED, [5, 4])
    return op.linearInt8(x, g.constant(weight), g.constant(scales))
  }),
  linearQ4: rounded('linearQ4', (x, g) => {
    const { weight, scales } = roundQ4(ROUNDED, [5, 4], 16)
    return op.linearQ4(x, g.constant(weight), g.constant(scales), 16)
  }),
}

export interface CaseGraph {
  readonly graph: Graph
  /** Those of the case's `inputs`. */
  readonly values: readonly Value[]
  /** `y`, the scalar `loss` (a weighted sum of y), and `g0`, `g1`, … its gradients with respect to the inputs, if it has any. */
  readonly outputs: Readonly<Record<string, Value>>
  /** `x0`, `x1`, … (float32), `i0`, … (int32) and `weights`, the same at every call. */
  readonly feeds: TensorMap
}

/** A case with random inputs, forward and backward. */
export function caseGraph({ inputs, indices = [], build, range = [-1, 1], refuses, sizes = {} }: OpCase): CaseGraph {
  const graph = new Graph()
  const values = inputs.map((dims, i) => graph.input(`x${i}`, 'float32', dims))
  const rows = indices.map(({ dims }, i) => graph.input(`i${i}`, 'int32', dims))
  const y = build(values, rows, graph)
  const loss = op.reduceSum(op.mul(y, graph.input('weights', 'float32', y.dims)))
  const gradients = refuses ? {} : Object.fromEntries(grad(loss, values).map((g, i) => [`g${i}`, g]))
  const feeds = {
    ...Object.fromEntries(inputs.map((dims, i) => [`x${i}`, random(`x${i}`, known(dims, sizes), range)])),
    ...Object.fromEntries(indices.map((tensor, i) => [`i${i}`, tensor])),
    weights: random('weights', known(y.dims, sizes), [-1, 1]),
  }
  return { graph, values, outputs: { y, loss, ...gradients }, feeds }
}

/** Symbols of a case stand alone. */
function known(dims: Dims, sizes: Readonly<Record<string, number>>): number[] {
  return dims.map((d) => (typeof d === 'number' ? d : sizes[d]!))
}

function random(name: string, dims: readonly number[], [low, high]: readonly [number, number]) {
  const key = randomKey(0, name)
  return f32(
    Float32Array.from({ length: sizeOf(dims) }, (_, i) => low + (high - low) * uniform(key, 0, i)),
    dims,
  )
}
