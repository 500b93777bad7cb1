/** The ops as functions on values. Numbers are allowed wherever an elementwise operand is. */
import { type DType, type HostTensor, f32 } from '../tensor.ts'
import { type Dim, type Dims, type Graph, GraphError, product, showDims, Value, type ValueType } from './graph.ts'
import type { OpAttrs, OpName } from './op-attrs.ts'
import { shapes } from './shapes.ts'

type Operand = Value | number

function apply<K extends OpName>(op: K, inputs: readonly Value[], attrs: OpAttrs[K]): readonly Value[] {
  return inputs[0]!.graph.add(op, inputs, attrs, shapes[op](inputs, attrs))
}

/** A float32 or int32 scalar constant. */
export function scalar(graph: Graph, x: number, dtype: ValueType = 'float32'): Value {
  if (dtype === 'float32') return graph.constant(f32([x], []))
  if (dtype === 'int32') return graph.constant({ dtype, dims: [], data: Int32Array.of(x) })
  throw new GraphError(`no ${dtype} scalars`)
}

function binary(op: 'add' | 'sub' | 'mul' | 'div' | 'minimum' | 'maximum' | 'less' | 'greaterOrEqual' | 'equal') {
  return (a: Operand, b: Operand): Value => {
    const like = a instanceof Value ? a : b
    if (!(like instanceof Value)) throw new GraphError(`${op}: one operand must be a graph value`)
    const lift = (x: Operand) => (x instanceof Value ? x : scalar(like.graph, x, like.dtype))
    return apply(op, [lift(a), lift(b)], {})[0]!
  }
}
export const add = binary('add')
export const sub = binary('sub')
export const mul = binary('mul')
export const div = binary('div')
export const minimum = binary('minimum')
export const maximum = binary('maximum')
export const less = binary('less')
export const greaterOrEqual = binary('greaterOrEqual')
export const equal = binary('equal')
/** a > b. */
export const greater = (a: Operand, b: Operand): Value => less(b, a)
export const logicalAnd = (a: Value, b: Value): Value => apply('and', [a, b], {})[0]!
export const logicalNot = (a: Value): Value => apply('not', [a], {})[0]!

const unary = (
  op: 'neg' | 'exp' | 'log' | 'sqrt' | 'tanh' | 'sigmoid' | 'erf' | 'silu' | 'geluTanh' | 'stopGradient',
) => {
  return (x: Value): Value => apply(op, [x], {})[0]!
}
export const neg = unary('neg')
export const exp = unary('exp')
export const log = unary('log')
export const sqrt = unary('sqrt')
export const tanh = unary('tanh')
export const sigmoid = unary('sigmoid')
export const erf = unary('erf')
/** x · sigmoid(x). */
export const silu = unary('silu')
/** GELU in its tanh approximation (`gelu_pytorch_tanh`). */
export const geluTanh = unary('geluTanh')
/** GELU without approximation: x · Φ(x). */
export const gelu = (x: Value): Value => mul(mul(x, 0.5), add(erf(mul(x, Math.SQRT1_2)), 1))
/** x · sigmoid(1.702 x), CLIP's approximation of GELU (`quick_gelu`). */
export const quickGelu = (x: Value): Value => mul(x, sigmoid(mul(x, 1.702)))
export const stopGradient = unary('stopGradient')

/** x, not before `others` (float32, at least one axis) have been computed; a copy for the optimizer, none in memory. */
export const after = (x: Value, others: readonly Value[]): Value =>
  others.length === 0 || x.rank === 0 ? x : apply('after', [x, ...others], {})[0]!

export const cast = (x: Value, to: DType): Value => (x.dtype === to ? x : apply('cast', [x], { to })[0]!)

/** Elementwise choice; `c` is bool. */
export function where(c: Value, a: Operand, b: Operand): Value {
  const like = a instanceof Value ? a : b instanceof Value ? b : scalar(c.graph, 0)
  const lift = (x: Operand) => (x instanceof Value ? x : scalar(c.graph, x, like.dtype))
  return apply('where', [c, lift(a), lift(b)], {})[0]!
}

/** `alpha · A·B` over the last two axes, leading axes broadcast. */
export function matmul(a: Value, b: Value, attrs: Partial<OpAttrs['matmul']> = {}): Value {
  return apply('matmul', [a, b], { transA: false, transB: false, alpha: 1, ...attrs })[0]!
}

/** x [..., in] · Wᵀ (+ b) for a weight in PyTorch's layout [out, in]. */
export function linear(x: Value, weight: Value, bias?: Value): Value {
  const y = matmul(x, weight, { transB: true })
  return bias ? add(y, bias) : y
}

export const softmax = (x: Value): Value => apply('softmax', [x], {})[0]!
export const logSoftmax = (x: Value): Value => apply('logSoftmax', [x], {})[0]!

interface Reduce {
  readonly axes?: readonly number[]
  readonly keepdims?: boolean
}
const reduce =
  (op: 'reduceSum' | 'reduceMean' | 'reduceMax') =>
  (x: Value, { axes, keepdims = false }: Reduce = {}): Value => {
    const all = (axes ?? x.dims.map((_, i) => i)).map((a) => (a < 0 ? a + x.rank : a))
    return all.length === 0 ? x : apply(op, [x], { axes: all, keepdims })[0]!
  }
/** Over all axes when none are given. */
export const reduceSum = reduce('reduceSum')
export const reduceMean = reduce('reduceMean')
/** Differentiable: the gradient goes to the maximum (shared equally by ties). */
export const reduceMax = reduce('reduceMax')
export const cumsum = (x: Value, axis: number): Value =>
  apply('cumsum', [x], { axis: axis < 0 ? axis + x.rank : axis })[0]!

export const argmax = (x: Value): Value => apply('argmax', [x], {})[0]!

export function reshape(x: Value, dims: Dims): Value {
  return showDims(x.dims) === showDims(dims) ? x : apply('reshape', [x], { dims })[0]!
}
/** Merges all axes but the last: [..., D] → [M, D]. */
export const flatten2d = (x: Value): Value => reshape(x, [product(x.dims.slice(0, -1)), x.dim(-1)])
export const transpose = (x: Value, perm: readonly number[]): Value => apply('transpose', [x], { perm })[0]!
export function broadcastTo(x: Value, dims: Dims): Value {
  return showDims(x.dims) === showDims(dims) ? x : apply('broadcastTo', [x], { dims })[0]!
}
export const concat = (xs: readonly Value[], axis: number): Value =>
  xs.length === 1 ? xs[0]! : apply('concat', xs, { axis })[0]!
export const slice = (x: Value, axis: number, start: Dim, end: Dim): Value =>
  apply('slice', [x], { axis, start, end })[0]!
export const pad = (x: Value, axis: number, before: number, after: number): Value =>
  apply('pad', [x], { axis, before, after })[0]!

/** Rows of axis 0 at int32 indices of any shape. */
export const gather = (table: Value, index: Value): Value => apply('gather', [table, index], {})[0]!
/** Indices int32 [size] of the true elements of a bool vector; `size` must be a symbol of its own. */
export const nonzero = (mask: Value, size: string): Value => apply('nonzero', [mask], { size })[0]!
export const scatterAdd = (index: Value, updates: Value, rows: Dim): Value =>
  apply('scatterAdd', [index, updates], { rows })[0]!
export const pick = (x: Value, index: Value): Value => apply('pick', [x, index], {})[0]!
export const unpick = (x: Value, index: Value, width: Dim): Value => apply('unpick', [x, index], { width })[0]!
export const arange = (x: Value, axis: number): Value => apply('arange', [x], { axis })[0]!

/** Layer normalisation over the last axis with weight and bias [D]. */
export const layerNorm = (x: Value, weight: Value, bias: Value, epsilon: number): Value =>
  apply('layerNorm', [x, weight, bias], { epsilon })[0]!
/** Root-mean-square normalisation over the last axis with weight [D]. */
export const rmsNorm = (x: Value, weight: Value, epsilon: number): Value =>
  apply('rmsNorm', [x, weight], { epsilon })[0]!

/** Rotary position embedding, half-split as in Llama. x [B, N, heads·d], positions int32 [B, N], cos/sin [P, d/2]. */
export const rotary = (x: Value, positions: Value, cos: Value, sin: Value, heads: number, inverse = false): Value =>
  apply('rotary', [x, positions, cos, sin], { heads, inverse })[0]!

/**
 * Attention of queries [B, N, heads·d] over keys and values [B, T, kvHeads·d], scores scaled by 1/√d; `bias` [B, N, T] is
 * added to them and gets no gradient.
 */
export const attention = (q: Value, k: Value, v: Value, bias: Value | null, attrs: OpAttrs['attention']): Value =>
  apply('attention', bias ? [q, k, v, bias] : [q, k, v], attrs)[0]!

/** log p [P] of targets under softmax(x·Wᵀ), log-normalisers [P] and probabilities [P, V]; only log p is differentiable. */
export function tokenLogprob(x: Value, weight: Value, targets: Value): { logp: Value; logZ: Value; probs: Value } {
  const [logp, logZ, probs] = apply('tokenLogprob', [x, weight, targets], {})
  return { logp: logp!, logZ: logZ!, probs: probs! }
}

/** x [..., in] · W for int8 weights [in, out] with a scale for each output; rows of x are rounded to 8 bits. */
export const linearInt8 = (x: Value, weight: Value, scales: Value): Value =>
  apply('linearInt8', [x, weight, scales], {})[0]!
/** x [..., in] · Wᵀ for 4-bit weights [out, blocks, block/2] with a scale for each block. */
export const linearQ4 = (x: Value, weight: Value, scales: Value, block: number): Value =>
  apply('linearQ4', [x, weight, scales], { block })[0]!

/** A constant tensor. */
export const constant = (graph: Graph, tensor: HostTensor): Value => graph.constant(tensor)

/** Ones of a (possibly symbolic) shape. */
export const ones = (graph: Graph, dims: Dims): Value => broadcastTo(scalar(graph, 1), dims)
