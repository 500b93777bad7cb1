/** Output types of every op: dtype and dims, or a GraphError that states the actual shapes. */
import type { DType } from '../tensor.ts'
import {
  type Dim,
  type Dims,
  difference,
  GraphError,
  product,
  showDims,
  sum,
  type Value,
  type ValueType,
} from './graph.ts'
import type { OpAttrs, OpName } from './op-attrs.ts'

export interface OutputSpec {
  readonly dtype: ValueType
  readonly dims: Dims
}
type ShapeRule<K extends OpName> = (inputs: readonly Value[], attrs: OpAttrs[K]) => readonly OutputSpec[]

/** Broadcast of two shapes by the ONNX rules. */
export function broadcast(op: string, a: Dims, b: Dims): Dims {
  const rank = Math.max(a.length, b.length)
  const out: Dim[] = []
  for (let i = 0; i < rank; i++) {
    const x = a[a.length - rank + i] ?? 1
    const y = b[b.length - rank + i] ?? 1
    if (x !== y && x !== 1 && y !== 1) throw new GraphError(`${op}: ${showDims(a)} and ${showDims(b)} do not broadcast`)
    out.push(x === 1 ? y : x)
  }
  return out
}

const elementwise =
  (op: string, dtype?: DType): ((inputs: readonly Value[]) => readonly OutputSpec[]) =>
  (inputs) => {
    const a = inputs[0]!
    const b = inputs[1]!
    if (a.dtype !== b.dtype) throw new GraphError(`${op}: dtypes ${a.dtype} and ${b.dtype} differ`)
    return [{ dtype: dtype ?? a.dtype, dims: broadcast(op, a.dims, b.dims) }]
  }
const same = (inputs: readonly Value[]): readonly OutputSpec[] => [{ dtype: inputs[0]!.dtype, dims: inputs[0]!.dims }]

function reduced(inputs: readonly Value[], attrs: { axes: readonly number[]; keepdims: boolean }) {
  const x = inputs[0]!
  const axes = new Set(attrs.axes.map((a) => (a < 0 ? a + x.rank : a)))
  const dims = x.dims.flatMap((d, i) => (axes.has(i) ? (attrs.keepdims ? [1] : []) : [d]))
  return [{ dtype: x.dtype, dims }]
}

function matmulDims(inputs: readonly Value[], attrs: OpAttrs['matmul']): Dims {
  const a = inputs[0]!
  const b = inputs[1]!
  const shown = `${showDims(a.dims)}${attrs.transA ? 'ᵀ' : ''} × ${showDims(b.dims)}${attrs.transB ? 'ᵀ' : ''}`
  if (a.rank < 2 || b.rank < 2) throw new GraphError(`matmul: ${shown} needs at least two axes each`)
  const [m, ka] = attrs.transA ? [a.dim(-1), a.dim(-2)] : [a.dim(-2), a.dim(-1)]
  const [kb, n] = attrs.transB ? [b.dim(-1), b.dim(-2)] : [b.dim(-2), b.dim(-1)]
  if (ka !== kb) throw new GraphError(`matmul: ${shown} does not fit (${ka} ≠ ${kb})`)
  return [...broadcast('matmul', a.dims.slice(0, -2), b.dims.slice(0, -2)), m, n]
}

function attentionShapes(inputs: readonly Value[], { heads, kvHeads }: OpAttrs['attention']): readonly OutputSpec[] {
  const [q, k, v, bias] = inputs as [Value, Value, Value, Value?]
  const shown = inputs.map((x) => showDims(x.dims)).join(' ')
  const size = Number(q.dim(-1)) / heads
  const [batch, n, t] = [q.dim(0), q.dim(1), k.dim(1)]
  const fits =
    q.rank === 3 &&
    Number.isInteger(size) &&
    Number.isInteger(heads / kvHeads) &&
    showDims(k.dims) === showDims([batch, t, kvHeads * size]) &&
    showDims(k.dims) === showDims(v.dims) &&
    (!bias || showDims(bias.dims) === showDims([batch, n, t]))
  if (!fits) throw new GraphError(`attention: ${shown} with ${heads} heads over ${kvHeads}`)
  const rows = product([heads / kvHeads, n])
  const { dtype } = q
  return [
    { dtype, dims: q.dims },
    { dtype, dims: [batch, kvHeads, rows, t] },
    { dtype, dims: [batch, kvHeads, rows, size] },
    { dtype, dims: [batch, kvHeads, t, size] },
    { dtype, dims: [batch, kvHeads, t, size] },
  ]
}

function linearInt8Shape(inputs: readonly Value[]): readonly OutputSpec[] {
  const [x, weight, scales] = inputs as [Value, Value, Value]
  const [into, out] = [weight.dim(0), weight.dim(-1)]
  const fits =
    x.dtype === 'float32' &&
    weight.dtype === 'int8' &&
    weight.rank === 2 &&
    x.dim(-1) === into &&
    showDims(scales.dims) === showDims([out])
  if (!fits) throw new GraphError(`linearInt8: ${showTypes(inputs)} is not x [..., in], int8 [in, out], scales [out]`)
  return [{ dtype: x.dtype, dims: [...x.dims.slice(0, -1), out] }]
}

function linearQ4Shape(inputs: readonly Value[], { block }: OpAttrs['linearQ4']): readonly OutputSpec[] {
  const [x, weight, scales] = inputs as [Value, Value, Value]
  const [out, into] = [Number(weight.dim(0)), Number(x.dim(-1))]
  const blocks = Math.ceil(into / block)
  const fits =
    x.dtype === 'float32' &&
    weight.dtype === 'uint8' &&
    showDims(weight.dims) === showDims([out, blocks, block / 2]) &&
    showDims(scales.dims) === showDims([out * blocks])
  if (!fits)
    throw new GraphError(
      `linearQ4: ${showTypes(inputs)} is not x [..., in], uint8 [out, blocks, ${block / 2}], scales [out·blocks]`,
    )
  return [{ dtype: x.dtype, dims: [...x.dims.slice(0, -1), out] }]
}

const showTypes = (values: readonly Value[]): string => values.map((v) => `${v.dtype} ${showDims(v.dims)}`).join(', ')

export const shapes: { [K in OpName]: ShapeRule<K> } = {
  add: elementwise('add'),
  sub: elementwise('sub'),
  mul: elementwise('mul'),
  div: elementwise('div'),
  minimum: elementwise('minimum'),
  maximum: elementwise('maximum'),
  less: elementwise('less', 'bool'),
  greaterOrEqual: elementwise('greaterOrEqual', 'bool'),
  equal: elementwise('equal', 'bool'),
  and: elementwise('and', 'bool'),
  not: same,
  neg: same,
  exp: same,
  log: same,
  sqrt: same,
  tanh: same,
  sigmoid: same,
  erf: same,
  silu: ([x]) => [0, 1].map(() => ({ dtype: x!.dtype, dims: x!.dims })),
  geluTanh: same,
  stopGradient: same,
  after: ([x, ...others]) => {
    if (x!.rank === 0 || others.some((v) => v.dtype !== 'float32' || v.rank === 0))
      throw new GraphError(`after: ${[x!, ...others].map((v) => `${v.dtype}${showDims(v.dims)}`).join(' ')}`)
    return same([x!])
  },
  cast: ([x], { to }) => [{ dtype: to, dims: x!.dims }],
  where: ([c, a, b]) => [{ dtype: a!.dtype, dims: broadcast('where', c!.dims, broadcast('where', a!.dims, b!.dims)) }],
  matmul: (inputs, attrs) => [{ dtype: inputs[0]!.dtype, dims: matmulDims(inputs, attrs) }],
  softmax: same,
  logSoftmax: same,
  reduceSum: reduced,
  reduceMean: reduced,
  reduceMax: reduced,
  cumsum: same,
  argmax: ([x]) => [{ dtype: 'int32', dims: x!.dims.slice(0, -1) }],
  reshape: ([x], { dims }) => {
    if (product(x!.dims) !== product(dims)) throw new GraphError(`reshape: ${showDims(x!.dims)} into ${showDims(dims)}`)
    return [{ dtype: x!.dtype, dims }]
  },
  transpose: ([x], { perm }) => {
    if (perm.length !== x!.rank) throw new GraphError(`transpose: ${showDims(x!.dims)} by [${perm.join(', ')}]`)
    return [{ dtype: x!.dtype, dims: perm.map((p) => x!.dim(p)) }]
  },
  broadcastTo: ([x], { dims }) => {
    const out = broadcast('broadcastTo', x!.dims, dims)
    if (showDims(out) !== showDims(dims)) throw new GraphError(`broadcastTo: ${showDims(x!.dims)} to ${showDims(dims)}`)
    return [{ dtype: x!.dtype, dims }]
  },
  concat: (inputs, { axis }) => {
    const first = inputs[0]!
    const at = axis < 0 ? axis + first.rank : axis
    for (const v of inputs)
      if (v.dims.some((d, i) => i !== at && d !== first.dims[i]))
        throw new GraphError(`concat: ${showDims(first.dims)} and ${showDims(v.dims)} along ${axis}`)
    const total = sum(inputs.map((v) => v.dim(at)))
    return [{ dtype: first.dtype, dims: first.dims.map((d, i) => (i === at ? total : d)) }]
  },
  slice: ([x], { axis, start, end }) => {
    const size = x!.dim(axis)
    const known = typeof size === 'number' && typeof start === 'number' && typeof end === 'number'
    if (known && (start < 0 || end > size || start >= end))
      throw new GraphError(`slice: ${start}..${end} of axis ${axis} of ${showDims(x!.dims)}`)
    const at = axis < 0 ? axis + x!.rank : axis
    const length = difference(end, start)
    return [{ dtype: x!.dtype, dims: x!.dims.map((d, i) => (i === at ? length : d)) }]
  },
  pad: ([x], { axis, before, after }) => {
    const at = axis < 0 ? axis + x!.rank : axis
    const size = x!.dim(axis)
    if (typeof size !== 'number') throw new GraphError(`pad: axis ${axis} of ${showDims(x!.dims)} must be known`)
    return [{ dtype: x!.dtype, dims: x!.dims.map((d, i) => (i === at ? size + before + after : d)) }]
  },
  gather: ([table, index]) => [{ dtype: table!.dtype, dims: [...index!.dims, ...table!.dims.slice(1)] }],
  nonzero: ([mask], { size }) => {
    if (mask!.dtype !== 'bool' || mask!.rank !== 1)
      throw new GraphError(`nonzero: ${mask!.dtype} ${showDims(mask!.dims)} is no bool vector`)
    return [{ dtype: 'int32', dims: [size] }]
  },
  scatterAdd: ([index, updates], { rows }) => {
    if (showDims(updates!.dims.slice(0, index!.rank)) !== showDims(index!.dims))
      throw new GraphError(`scatterAdd: updates ${showDims(updates!.dims)} at ${showDims(index!.dims)}`)
    return [{ dtype: updates!.dtype, dims: [rows, ...updates!.dims.slice(index!.rank)] }]
  },
  pick: ([x, index]) => {
    if (showDims(x!.dims.slice(0, -1)) !== showDims(index!.dims))
      throw new GraphError(`pick: ${showDims(x!.dims)} at ${showDims(index!.dims)}`)
    return [{ dtype: x!.dtype, dims: index!.dims }]
  },
  unpick: ([x, index], { width }) => {
    if (showDims(x!.dims) !== showDims(index!.dims))
      throw new GraphError(`unpick: ${showDims(x!.dims)} at ${showDims(index!.dims)}`)
    return [{ dtype: x!.dtype, dims: [...x!.dims, width] }]
  },
  arange: ([x], { axis }) => [{ dtype: 'int32', dims: [x!.dim(axis)] }],
  layerNorm: ([x]) => {
    const stat = { dtype: x!.dtype, dims: [...x!.dims.slice(0, -1), 1] }
    return [{ dtype: x!.dtype, dims: x!.dims }, stat, stat]
  },
  rmsNorm: ([x]) => [
    { dtype: x!.dtype, dims: x!.dims },
    { dtype: x!.dtype, dims: [...x!.dims.slice(0, -1), 1] },
  ],
  rotary: ([x, positions], { heads }) => {
    const width = x!.dim(-1)
    if (x!.rank !== 3 || typeof width !== 'number' || width % (2 * heads) !== 0)
      throw new GraphError(`rotary: ${showDims(x!.dims)} with ${heads} heads`)
    if (showDims(positions!.dims) !== showDims(x!.dims.slice(0, 2)))
      throw new GraphError(`rotary: positions ${showDims(positions!.dims)} for ${showDims(x!.dims)}`)
    return [{ dtype: x!.dtype, dims: x!.dims }]
  },
  attention: attentionShapes,
  tokenLogprob: ([x, weight, targets]) => {
    const [rows, width] = [x!.dim(0), x!.dim(-1)]
    if (x!.rank !== 2 || weight!.dim(-1) !== width || showDims(targets!.dims) !== showDims([rows]))
      throw new GraphError(`tokenLogprob: ${[x!, weight!, targets!].map((v) => showDims(v.dims)).join(' ')}`)
    const { dtype } = x!
    const row = { dtype, dims: [rows] }
    return [row, row, { dtype, dims: [rows, weight!.dim(0)] }]
  },
  linearInt8: linearInt8Shape,
  linearQ4: linearQ4Shape,
}
