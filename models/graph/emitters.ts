/** How every op is written in ONNX (opset 20) or in onnxruntime's contributed ops (`com.microsoft`). */
import type { DType } from '../tensor.ts'
import { type Dim, type Dims, type Node, product } from './graph.ts'
import type { OpAttrs, OpName } from './op-attrs.ts'
import { DATA_TYPE, type NodeAttrs, type Writer } from './onnx-writer.ts'
import { emitLinearInt8, emitLinearQ4 } from './rounded-emitters.ts'

export type Emit<K extends OpName> = (
  w: Writer,
  node: Node<K>,
  inputs: readonly string[],
  outputs: readonly string[],
) => void

/** One ONNX node with the same inputs and outputs. */
const plain =
  (type: string, domain = ''): ((w: Writer, node: Node, i: readonly string[], o: readonly string[]) => void) =>
  (w, _node, inputs, outputs) =>
    w.node(type, inputs, outputs, {}, domain)

const lastAxis =
  (type: string) =>
  (w: Writer, _node: Node, inputs: readonly string[], outputs: readonly string[]): void =>
    w.node(type, inputs, outputs, { axis: -1 })

const reduce =
  (type: string): Emit<'reduceSum' | 'reduceMean' | 'reduceMax'> =>
  (w, { attrs }, [x], outputs) =>
    w.node(type, [x!, w.int64s(attrs.axes)], outputs, { keepdims: attrs.keepdims ? 1 : 0 })

/** Shape operand of a Reshape: constants, 0 for a size kept in place, −1 for one unknown; computed where that is not enough. */
function reshapeTarget(w: Writer, node: Node<'reshape'>): string {
  const from = node.inputs[0]!.dims
  const target = node.attrs.dims
  const kept = (d: Dim, i: number) =>
    typeof d === 'string' && from[i] === d && product(target.slice(0, i)) === product(from.slice(0, i))
  const unknown = target.filter((d, i) => typeof d === 'string' && !kept(d, i))
  if (unknown.length > 1) return w.shape(target)
  return w.int64s(target.map((d, i) => (typeof d === 'number' ? d : kept(d, i) ? 0 : -1)))
}

/** `index[..., 1]` as int64, what GatherElements and ScatterND want. */
function indexColumn(w: Writer, index: string): string {
  const wide = w.fresh('index')
  w.node('Cast', [index], [wide], { to: DATA_TYPE.int64 })
  const column = w.fresh('index')
  w.node('Unsqueeze', [wide, w.int64s([-1])], [column])
  return column
}

/** One node of a single output under a new name. */
export function via(w: Writer, type: string, inputs: readonly string[], attrs: NodeAttrs = {}): string {
  const name = w.fresh(type)
  w.node(type, inputs, [name], attrs)
  return name
}

/** Emits the product of two values; what devices have different operators for. */
export type EmitProduct = (
  w: Writer,
  inputs: readonly [string, string],
  output: string,
  how: OpAttrs['matmul'] & { readonly dims: readonly [Dims, Dims] },
) => void

const fusedProduct: EmitProduct = (w, inputs, output, { transA, transB, alpha }) => {
  if (!transA && !transB && alpha === 1) return w.node('MatMul', inputs, [output])
  const flags = { transA: transA ? 1 : 0, transB: transB ? 1 : 0, alpha: w.float(alpha) }
  w.node('FusedMatMul', inputs, [output], flags, 'com.microsoft')
}

export const matmulWith =
  (emitProduct: EmitProduct): Emit<'matmul'> =>
  (w, { attrs, inputs }, [a, b], [y]) =>
    emitProduct(w, [a!, b!], y!, { ...attrs, dims: [inputs[0]!.dims, inputs[1]!.dims] })

/**
 * A Reshape to the shape that x has, [0, 0, …], which is computed from one element of each of the others: a view, which
 * cannot be made before they are there, and which no optimizer sees through. NaN and infinity do no harm.
 *
 * `flagOf` emits any bool of x.
 */
export const afterWith =
  (flagOf: (w: Writer, x: string) => string): Emit<'after'> =>
  (w, node, [x, ...others], outputs) => {
    const firsts = others.map((v) =>
      w.cached(`first of ${v}`, (name) => {
        const flat = w.fresh('flat')
        w.node('Reshape', [v, w.int64s([-1])], [flat])
        w.node('Slice', [flat, w.int64s([0]), w.int64s([1]), w.int64s([0])], [name])
      }),
    )
    const shape = w.cached(`zeros ${node.inputs[0]!.rank} after ${firsts.join()}`, (name) => {
      const [all, least, number] = [w.fresh('all'), w.fresh('least'), w.fresh('number')]
      w.node('Concat', firsts, [all], { axis: 0 })
      w.node('ReduceMin', [all, w.int64s([0])], [least], { keepdims: 1 })
      w.node('Cast', [flagOf(w, least)], [number], { to: DATA_TYPE.int64 })
      w.node('Mul', [number, w.int64s(node.inputs[0]!.dims.map(() => 0))], [name])
    })
    w.node('Reshape', [x!, shape], outputs)
  }

/** Scores over this many keys are as fast when they are written. */
const FEW_KEYS = 512

/**
 * Attention by head: the query heads of one key head are stacked along the token axis, so that keys are never repeated.
 * `blocks` allows an operator of onnxruntime's own that goes through many keys in blocks.
 */
export const attentionWith =
  (emitProduct: EmitProduct, blocks: boolean): Emit<'attention'> =>
  (w, node, [q, k, v, bias], [out, ...saved]) => {
    const { heads, kvHeads } = node.attrs
    const [values, keys] = [node.inputs[0]!, node.inputs[1]!]
    const [batch, n, t, repeats] = [values.dim(0), values.dim(1), keys.dim(1), heads / kvHeads]
    // Of many keys the scores would fill the memory; onnxruntime goes through them in blocks where nothing else is asked for.
    const few = typeof t === 'number' && t <= FEW_KEYS
    if (blocks && !few && !bias && saved.length === 0 && heads === kvHeads)
      return w.node('MultiHeadAttention', [q!, k!, v!], [out!], { num_heads: heads }, 'com.microsoft')
    const size = Number(values.dim(2)) / heads
    const [probs, qh, kh, vh] = ['probs', 'q', 'k', 'v'].map((hint, i) => saved[i] || w.fresh(hint)) as [
      string,
      string,
      string,
      string,
    ]
    const split = via(w, 'Transpose', [via(w, 'Reshape', [q!, w.int64s([0, 0, kvHeads, repeats, size])])], {
      perm: [0, 2, 3, 1, 4],
    })
    w.node('Reshape', [split, w.int64s([0, 0, -1, size])], [qh])
    for (const [x, name] of [
      [k!, kh],
      [v!, vh],
    ] as const)
      w.node('Transpose', [via(w, 'Reshape', [x, w.int64s([0, 0, kvHeads, size])])], [name], { perm: [0, 2, 1, 3] })
    const scores = w.fresh('scores')
    const dims = [
      [batch, kvHeads, product([repeats, n]), size],
      [batch, kvHeads, t, size],
    ] as const
    emitProduct(w, [qh, kh], scores, { transA: false, transB: true, alpha: size ** -0.5, dims })
    if (bias) {
      const wide = w.cached(`${bias} by head`, (name) => w.node('Unsqueeze', [bias, w.int64s([1, 2])], [name]))
      const sum = via(w, 'Add', [via(w, 'Reshape', [scores, w.shape([batch, kvHeads, repeats, n, t])]), wide])
      const soft = via(w, 'Softmax', [sum], { axis: -1 })
      w.node('Reshape', [soft, w.shape([batch, kvHeads, product([repeats, n]), t])], [probs])
    } else w.node('Softmax', [scores], [probs], { axis: -1 })
    const mixed = via(w, 'Reshape', [via(w, 'MatMul', [probs, vh]), w.int64s([0, 0, repeats, -1, size])])
    const merged = via(w, 'Transpose', [mixed], { perm: [0, 3, 1, 2, 4] })
    w.node('Reshape', [merged, w.int64s([0, 0, heads * size])], [out!])
  }

/** `pickColumn` emits x[..., index[...]] as [..., 1]. */
export const tokenLogprobWith =
  (emitProduct: EmitProduct, pickColumn: (w: Writer, x: string, index: string) => string): Emit<'tokenLogprob'> =>
  (w, { inputs }, [x, weight, targets], [logp, logZ, probs]) => {
    const z = w.fresh('logits')
    emitProduct(w, [x!, weight!], z, {
      transA: false,
      transB: true,
      alpha: 1,
      dims: [inputs[0]!.dims, inputs[1]!.dims],
    })
    const p = probs || w.fresh('probs')
    w.node('Softmax', [z], [p], { axis: -1 })
    // log Z = max z − log max p: two reads, no pass of exponentials, and max p cannot underflow.
    const [top, best] = [z, p].map((v) => via(w, 'ReduceMax', [v, w.int64s([-1])], { keepdims: 0 }))
    const normaliser = logZ || w.fresh('logZ')
    w.node('Sub', [top!, via(w, 'Log', [best!])], [normaliser])
    const score = via(w, 'Squeeze', [pickColumn(w, z, targets!), w.int64s([-1])])
    w.node('Sub', [score, normaliser], [logp!])
  }

const pickColumn = (w: Writer, x: string, index: string): string =>
  via(w, 'GatherElements', [x, indexColumn(w, index)], { axis: -1 })

export type Emitters = { readonly [K in OpName]: Emit<K> }

/** For onnxruntime's own kernels and for the devices that have the same. */
export const emitters: Emitters = {
  add: plain('Add'),
  sub: plain('Sub'),
  mul: plain('Mul'),
  div: plain('Div'),
  minimum: plain('Min'),
  maximum: plain('Max'),
  less: plain('Less'),
  greaterOrEqual: plain('GreaterOrEqual'),
  equal: plain('Equal'),
  and: plain('And'),
  not: plain('Not'),
  neg: plain('Neg'),
  exp: plain('Exp'),
  log: plain('Log'),
  sqrt: plain('Sqrt'),
  tanh: plain('Tanh'),
  sigmoid: plain('Sigmoid'),
  erf: plain('Erf'),
  silu: (w, _n, inputs, [y, s]) => {
    if (!s) return w.node('QuickGelu', inputs, [y!], { alpha: w.float(1) }, 'com.microsoft')
    w.node('Sigmoid', inputs, [s])
    w.node('Mul', [inputs[0]!, s], [y!])
  },
  geluTanh: (w, _n, inputs, outputs) => w.node('Gelu', inputs, outputs, { approximate: 'tanh' }),
  stopGradient: plain('Identity'),
  after: afterWith((w, x) => via(w, 'IsNaN', [x])),
  cast: (w, { attrs }, inputs, outputs) => w.node('Cast', inputs, outputs, { to: DATA_TYPE[attrs.to satisfies DType] }),
  where: plain('Where'),
  matmul: matmulWith(fusedProduct),
  softmax: lastAxis('Softmax'),
  logSoftmax: lastAxis('LogSoftmax'),
  reduceSum: reduce('ReduceSum'),
  reduceMean: reduce('ReduceMean'),
  reduceMax: reduce('ReduceMax'),
  cumsum: (w, { attrs }, [x], outputs) => w.node('CumSum', [x!, w.int64s([attrs.axis])], outputs),
  argmax: (w, _node, inputs, outputs) => {
    const wide = w.fresh('argmax')
    w.node('ArgMax', inputs, [wide], { axis: -1, keepdims: 0 })
    w.node('Cast', [wide], outputs, { to: DATA_TYPE.int32 })
  },
  reshape: (w, node, [x], outputs) => w.node('Reshape', [x!, reshapeTarget(w, node)], outputs),
  transpose: (w, { attrs }, inputs, outputs) => w.node('Transpose', inputs, outputs, { perm: attrs.perm }),
  broadcastTo: (w, { attrs }, [x], outputs) => w.node('Expand', [x!, w.shape(attrs.dims)], outputs),
  concat: (w, { attrs }, inputs, outputs) => w.node('Concat', inputs, outputs, { axis: attrs.axis }),
  slice: (w, { attrs }, [x], outputs) => {
    const { axis, start, end } = attrs
    w.node('Slice', [x!, w.shape([start]), w.shape([end]), w.int64s([axis])], outputs)
  },
  pad: (w, node, [x], outputs) => {
    const { axis, before, after } = node.attrs
    w.node('Pad', [x!, w.int64s([before, after]), '', w.int64s([axis])], outputs)
  },
  gather: plain('Gather'),
  nonzero: (w, _node, [mask], outputs) => {
    const [rows, flat] = [w.fresh('nonzero'), w.fresh('nonzero')]
    w.node('NonZero', [mask!], [rows])
    w.node('Squeeze', [rows, w.int64s([0])], [flat])
    w.node('Cast', [flat], outputs, { to: DATA_TYPE.int32 })
  },
  // ScatterND would add in parallel and lose sums where an index comes twice (onnxruntime#23396); this one does not.
  scatterAdd: (w, node, [index, updates], outputs) => {
    const { dims } = node.outputs[0]!
    const zeros = via(w, 'Flatten', [via(w, 'ConstantOfShape', [w.shape(dims)])], { axis: 1 })
    const rows = via(w, 'Flatten', [updates!], { axis: node.inputs[0]!.rank })
    const column = via(w, 'Reshape', [index!, w.int64s([-1, 1])])
    const wide = via(w, 'Expand', [column, via(w, 'Shape', [rows])])
    const attrs = { axis: 0, reduction: 'add' }
    if (dims.length === 2) w.node('ScatterElements', [zeros, wide, rows], outputs, attrs)
    else w.node('Reshape', [via(w, 'ScatterElements', [zeros, wide, rows], attrs), w.shape(dims)], outputs)
  },
  pick: (w, _node, [x, index], outputs) => w.node('Squeeze', [pickColumn(w, x!, index!), w.int64s([-1])], outputs),
  unpick: (w, { attrs }, [x, index], outputs) => {
    const [wide, hot, column] = [w.fresh('index'), w.fresh('hot'), w.fresh('column')]
    w.node('Cast', [index!], [wide], { to: DATA_TYPE.int64 })
    w.node('OneHot', [wide, w.shape([attrs.width]), w.float32s([0, 1])], [hot], { axis: -1 })
    w.node('Unsqueeze', [x!, w.int64s([-1])], [column])
    w.node('Mul', [hot, column], outputs)
  },
  arange: (w, node, _inputs, outputs) => w.node('Identity', [w.range(node.outputs[0]!.dim(0))], outputs),
  layerNorm: (w, { attrs }, inputs, outputs) =>
    w.node('LayerNormalization', inputs, outputs, { axis: -1, epsilon: w.float(attrs.epsilon) }),
  rmsNorm: (w, { attrs }, inputs, outputs) =>
    w.node('SimplifiedLayerNormalization', inputs, outputs, { axis: -1, epsilon: w.float(attrs.epsilon) }),
  rotary: (w, { attrs }, [x, positions, cos, sin], outputs) => {
    const wide = w.cached(`${positions!} as int64`, (name) =>
      w.node('Cast', [positions!], [name], { to: DATA_TYPE.int64 }),
    )
    const turn = attrs.inverse ? w.cached(`-${sin!}`, (name) => w.node('Neg', [sin!], [name])) : sin!
    w.node(
      'RotaryEmbedding',
      [x!, wide, cos!, turn],
      outputs,
      { num_heads: attrs.heads, interleaved: 0 },
      'com.microsoft',
    )
  },
  attention: attentionWith(fusedProduct, true),
  tokenLogprob: tokenLogprobWith(fusedProduct, pickColumn),
  linearInt8: emitLinearInt8,
  linearQ4: emitLinearQ4,
}
