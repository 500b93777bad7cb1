/**
 * Reverse-mode rules of every op: from the gradients of the outputs to those of the inputs (null = none flows).
 * `never` marks ops whose result is piecewise constant or integer; asking for a gradient through them yields none.
 */
import { type Dim, type Dims, type Node, GraphError, product, showDims, type Value } from './graph.ts'
import type { OpName } from './op-attrs.ts'
import * as op from './ops.ts'

/** `g[i]` is the gradient of output i, undefined when nothing depends on it. */
type Vjp<K extends OpName> = (node: Node<K>, g: readonly (Value | undefined)[]) => readonly (Value | null)[]
const never = (): readonly null[] => []
/** Rounded weights are for sampling only: a gradient through them would be that of another function. */
const refuse = (node: Node): never => {
  throw new GraphError(`${node.op} has no gradient: quantised weights are for sampling, train with float32 ones`)
}

/** Sums a gradient over the axes along which its value was broadcast. */
export function unbroadcast(g: Value, dims: Dims): Value {
  if (showDims(g.dims) === showDims(dims)) return g
  const lead = g.rank - dims.length
  const axes = g.dims.map((_, i) => i).filter((i) => i < lead || (dims[i - lead] === 1 && g.dims[i] !== 1))
  const summed = op.reduceSum(g, { axes, keepdims: true })
  return op.reshape(summed, dims)
}

const through = (f: (x: Value, y: Value, g: Value) => Value) => {
  return (node: Node, g: readonly (Value | undefined)[]): readonly Value[] => [
    f(node.inputs[0]!, node.outputs[0]!, g[0]!),
  ]
}
/** Broadcasting binary op: gradients of both operands, computed in the shape of the output. */
const both = (f: (a: Value, b: Value, g: Value, y: Value) => readonly [Value, Value]) => {
  return (node: Node, g: readonly (Value | undefined)[]): readonly Value[] => {
    const [a, b] = [node.inputs[0]!, node.inputs[1]!]
    const [ga, gb] = f(a, b, g[0]!, node.outputs[0]!)
    return [unbroadcast(ga, a.dims), unbroadcast(gb, b.dims)]
  }
}

/** The smaller (or larger) operand gets the gradient; the first one at a tie. */
const extremum = (firstWins: (a: Value, b: Value) => Value) =>
  both((a, b, g) => {
    const first = firstWins(a, b)
    return [op.where(first, g, 0), op.where(first, 0, g)]
  })

function matmul(node: Node<'matmul'>, grads: readonly (Value | undefined)[]): readonly Value[] {
  const [a, b] = [node.inputs[0]!, node.inputs[1]!]
  const { transA, transB, alpha } = node.attrs
  const g = grads[0]!
  // dA = α g·Bᵀ and dB = α Aᵀ·g, each transposed back where the operand entered transposed.
  const ga = transA
    ? op.matmul(b, g, { transA: transB, transB: true, alpha })
    : op.matmul(g, b, { transB: !transB, alpha })
  // A 2-D weight under batched activations: one flat product instead of a batch of products and a sum.
  const flat = b.rank === 2 && a.rank > 2 && !transA
  const [x, y] = flat ? [op.flatten2d(a), op.flatten2d(g)] : [a, g]
  const gb = transB
    ? op.matmul(y, x, { transA: true, transB: transA, alpha })
    : op.matmul(x, y, { transA: !transA, alpha })
  return [unbroadcast(ga, a.dims), unbroadcast(gb, b.dims)]
}

function layerNorm(node: Node<'layerNorm'>, grads: readonly (Value | undefined)[]): readonly Value[] {
  const [x, weight, bias] = [node.inputs[0]!, node.inputs[1]!, node.inputs[2]!]
  const [, mean, invStd] = node.outputs as [Value, Value, Value]
  const g = grads[0]!
  const normed = op.mul(op.sub(x, mean), invStd)
  const gn = op.mul(g, weight)
  const m1 = op.reduceMean(gn, { axes: [-1], keepdims: true })
  const m2 = op.reduceMean(op.mul(gn, normed), { axes: [-1], keepdims: true })
  const gx = op.mul(op.sub(op.sub(gn, m1), op.mul(normed, m2)), invStd)
  return [gx, unbroadcast(op.mul(g, normed), weight.dims), unbroadcast(g, bias.dims)]
}

function rmsNorm(node: Node<'rmsNorm'>, grads: readonly (Value | undefined)[]): readonly Value[] {
  const [x, weight] = [node.inputs[0]!, node.inputs[1]!]
  const invRms = node.outputs[1]!
  const g = grads[0]!
  const normed = op.mul(x, invRms)
  const gn = op.mul(g, weight)
  const m = op.reduceMean(op.mul(gn, normed), { axes: [-1], keepdims: true })
  const gx = op.mul(op.sub(gn, op.mul(normed, m)), invRms)
  return [gx, unbroadcast(op.mul(g, normed), weight.dims)]
}

function concat(node: Node<'concat'>, grads: readonly (Value | undefined)[]): readonly Value[] {
  let at = 0
  return node.inputs.map((v) => {
    const size = v.dim(node.attrs.axis)
    if (typeof size !== 'number') throw new GraphError(`no gradient through a concat of symbolic sizes (${size})`)
    at += size
    return op.slice(grads[0]!, node.attrs.axis, at - size, at)
  })
}

function slice(node: Node<'slice'>, grads: readonly (Value | undefined)[]): readonly Value[] {
  const { axis, start, end } = node.attrs
  const size = node.inputs[0]!.dim(axis)
  if (typeof size !== 'number' || typeof start !== 'number' || typeof end !== 'number')
    throw new GraphError(`no gradient through a slice ${start}..${end} of a symbolic axis`)
  return [op.pad(grads[0]!, axis, start, size - end)]
}

/** Puts reduced axes back as size 1. */
function keepDims(node: Node<'reduceSum' | 'reduceMean' | 'reduceMax'>, v: Value): Value {
  const axes = new Set(node.attrs.axes)
  return op.reshape(
    v,
    node.inputs[0]!.dims.map((d, i) => (axes.has(i) ? 1 : d)),
  )
}

function reduceMean(node: Node<'reduceMean'>, grads: readonly (Value | undefined)[]): readonly Value[] {
  const x = node.inputs[0]!
  const g = keepDims(node, grads[0]!)
  const sizes = node.attrs.axes.map((a) => x.dim(a))
  if (sizes.some((s) => typeof s !== 'number')) throw new GraphError('no gradient through a mean over a symbolic axis')
  const n = sizes.reduce<number>((p, s) => p * Number(s), 1)
  return [op.broadcastTo(op.mul(g, 1 / n), x.dims)]
}

function reduceMax(node: Node<'reduceMax'>, grads: readonly (Value | undefined)[]): readonly Value[] {
  const x = node.inputs[0]!
  const hit = op.cast(op.equal(x, keepDims(node, node.outputs[0]!)), 'float32')
  const ties = op.reduceSum(hit, { axes: node.attrs.axes, keepdims: true })
  return [op.mul(hit, op.div(keepDims(node, grads[0]!), ties))]
}

/** [B, N, heads·d] → [B, kvHeads, heads/kvHeads·N, d]. */
function byHead(x: Value, heads: number, kvHeads: number): Value {
  const [batch, n, repeats, size] = [x.dim(0), x.dim(1), heads / kvHeads, Number(x.dim(2)) / heads]
  const split = op.transpose(op.reshape(x, [batch, n, kvHeads, repeats, size]), [0, 2, 3, 1, 4])
  return op.reshape(split, [batch, kvHeads, product([repeats, n]), size])
}

/** [B, kvHeads, repeats·N, d] → [B, N, kvHeads·repeats·d]. */
function fromHeads(x: Value, repeats: number, n: Dim): Value {
  const [batch, kvHeads, , size] = x.dims as [Dim, number, Dim, number]
  const split = op.reshape(x, [batch, kvHeads, repeats, n, size])
  return op.reshape(op.transpose(split, [0, 3, 1, 2, 4]), [batch, n, kvHeads * repeats * size])
}

/** dS = P∘(dP − rowsum(dO∘O)) (Dao et al. 2022): the row sums come from the outputs, not from another pass over dP∘P. */
function attention(node: Node<'attention'>, grads: readonly (Value | undefined)[]): readonly (Value | null)[] {
  const { heads, kvHeads } = node.attrs
  const [out, probs, q, k, v] = node.outputs as [Value, Value, Value, Value, Value]
  const [repeats, n, t, size] = [heads / kvHeads, out.dim(1), k.dim(2), Number(k.dim(3))]
  const g = grads[0]!
  const go = byHead(g, heads, kvHeads)
  const perHead = op.reshape(op.mul(g, out), [out.dim(0), n, heads, size])
  const sums = byHead(op.reduceSum(perHead, { axes: [-1] }), heads, kvHeads)
  const ds = op.mul(probs, op.sub(op.matmul(go, v, { transB: true }), sums))
  const alpha = size ** -0.5
  return [
    fromHeads(op.matmul(ds, k, { alpha }), repeats, n),
    fromHeads(op.matmul(ds, q, { transA: true, alpha }), 1, t),
    fromHeads(op.matmul(probs, go, { transA: true }), 1, t),
    null,
  ]
}

/** Nothing of the size [P, V] but the probabilities: dx = g∘(W[target] − P·W), dW = scatter(g∘x) − Pᵀ·(g∘x). */
function tokenLogprob(node: Node<'tokenLogprob'>, grads: readonly (Value | undefined)[]): readonly (Value | null)[] {
  const [x, weight, targets] = node.inputs as [Value, Value, Value]
  const probs = node.outputs[2]!
  const g = op.reshape(grads[0]!, [x.dim(0), 1])
  const gx = op.mul(g, x)
  return [
    op.mul(g, op.sub(op.gather(weight, targets), op.matmul(probs, weight))),
    op.sub(op.scatterAdd(targets, gx, weight.dim(0)), op.matmul(probs, gx, { transA: true })),
    null,
  ]
}

export const vjps: { [K in OpName]: Vjp<K> } = {
  add: both((_a, _b, g) => [g, g]),
  sub: both((_a, _b, g) => [g, op.neg(g)]),
  mul: both((a, b, g) => [op.mul(g, b), op.mul(g, a)]),
  div: both((_a, b, g, y) => [op.div(g, b), op.neg(op.div(op.mul(g, y), b))]),
  minimum: extremum((a, b) => op.greaterOrEqual(b, a)),
  maximum: extremum((a, b) => op.greaterOrEqual(a, b)),
  less: never,
  greaterOrEqual: never,
  equal: never,
  and: never,
  not: never,
  neg: through((_x, _y, g) => op.neg(g)),
  exp: through((_x, y, g) => op.mul(g, y)),
  log: through((x, _y, g) => op.div(g, x)),
  sqrt: through((_x, y, g) => op.div(op.mul(g, 0.5), y)),
  tanh: through((_x, y, g) => op.mul(g, op.sub(1, op.mul(y, y)))),
  sigmoid: through((_x, y, g) => op.mul(g, op.mul(y, op.sub(1, y)))),
  // d erf = 2/√π · exp(−x²).
  erf: through((x, _y, g) => op.mul(g, op.mul(op.exp(op.neg(op.mul(x, x))), 2 / Math.sqrt(Math.PI)))),
  // d silu = s + y(1 − s) with s = sigmoid(x), y = x·s.
  silu: (node, g) => {
    const [y, s] = node.outputs as [Value, Value]
    return [op.mul(g[0]!, op.add(y, op.mul(s, op.sub(1, y))))]
  },
  // y = x·s with s = sigmoid(2u), u = c(x + a x³); dy = s + y(1 − s)·2u'.
  geluTanh: through((x, y, g) => {
    const c = Math.sqrt(2 / Math.PI)
    const x2 = op.mul(x, x)
    const s = op.sigmoid(op.mul(x, op.add(op.mul(x2, 2 * c * 0.044715), 2 * c)))
    const slope = op.add(op.mul(x2, 6 * c * 0.044715), 2 * c)
    return op.mul(g, op.add(s, op.mul(op.mul(y, op.sub(1, s)), slope)))
  }),
  stopGradient: never,
  after: (_node, g) => [g[0]!],
  cast: (node, g) => [node.inputs[0]!.dtype === 'float32' && node.attrs.to === 'float32' ? g[0]! : null],
  where: (node, g) => {
    const [c, a, b] = node.inputs as [Value, Value, Value]
    const [ga, gb] = [op.where(c, g[0]!, 0), op.where(c, 0, g[0]!)]
    return [null, unbroadcast(ga, a.dims), unbroadcast(gb, b.dims)]
  },
  matmul,
  softmax: through((_x, y, g) => {
    const gy = op.mul(g, y)
    return op.sub(gy, op.mul(y, op.reduceSum(gy, { axes: [-1], keepdims: true })))
  }),
  logSoftmax: through((_x, y, g) => op.sub(g, op.mul(op.exp(y), op.reduceSum(g, { axes: [-1], keepdims: true })))),
  reduceSum: (node, g) => [op.broadcastTo(keepDims(node, g[0]!), node.inputs[0]!.dims)],
  reduceMean,
  reduceMax,
  // The reversed cumulative sum of g: total − cumsum(g) + g.
  cumsum: (node, g) => {
    const { axis } = node.attrs
    const total = op.reduceSum(g[0]!, { axes: [axis], keepdims: true })
    return [op.add(op.sub(total, op.cumsum(g[0]!, axis)), g[0]!)]
  },
  argmax: never,
  reshape: (node, g) => [op.reshape(g[0]!, node.inputs[0]!.dims)],
  transpose: (node, g) => {
    const inverse = node.attrs.perm.map((_, i) => node.attrs.perm.indexOf(i))
    return [op.transpose(g[0]!, inverse)]
  },
  broadcastTo: (node, g) => [unbroadcast(g[0]!, node.inputs[0]!.dims)],
  concat,
  slice,
  pad: (node, g) => {
    const { axis, before } = node.attrs
    return [op.slice(g[0]!, axis, before, before + Number(node.inputs[0]!.dim(axis)))]
  },
  gather: (node, g) => [op.scatterAdd(node.inputs[1]!, g[0]!, node.inputs[0]!.dim(0)), null],
  scatterAdd: (node, g) => [null, op.gather(g[0]!, node.inputs[0]!)],
  pick: (node, g) => [op.unpick(g[0]!, node.inputs[1]!, node.inputs[0]!.dim(-1)), null],
  unpick: (node, g) => [op.pick(g[0]!, node.inputs[1]!), null],
  nonzero: never,
  arange: never,
  layerNorm,
  rmsNorm,
  // A rotation is orthogonal: its gradient turns back.
  rotary: (node, g) => {
    const [, positions, cos, sin] = node.inputs as [Value, Value, Value, Value]
    return [op.rotary(g[0]!, positions, cos, sin, node.attrs.heads, !node.attrs.inverse), null, null, null]
  },
  attention,
  tokenLogprob,
  linearInt8: refuse,
  linearQ4: refuse,
}
