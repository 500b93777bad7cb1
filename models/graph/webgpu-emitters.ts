/**
 * Ops that are written differently for onnxruntime's WebGPU kernels: what they lack would be computed on the CPU, and its
 * tensors copied there and back. They have no fused product, no LogSoftmax, OneHot or ConstantOfShape, no Slice of integers, and
 * int64 only as what int32 is cast to.
 */
import {
  afterWith,
  attentionWith,
  type Emitters,
  emitters,
  type EmitProduct,
  matmulWith,
  tokenLogprobWith,
  via,
} from './emitters.ts'
import { DATA_TYPE, type Writer } from './onnx-writer.ts'

/** A matrix on the right is one product of rows, which reads it as it is; turning a weight would copy it at every run. */
const product: EmitProduct = (w, [a, b], output, { transA, transB, alpha, dims: [left, right] }) => {
  if (right.length === 2 && (left.length === 2 || !transA)) {
    const flags = { transA: transA ? 1 : 0, transB: transB ? 1 : 0, alpha: w.float(alpha) }
    if (left.length === 2) return w.node('Gemm', [a, b], [output], flags)
    const rows = via(w, 'Reshape', [a, w.int64s([-1, Number(left.at(-1))])])
    const target = w.shape([...left.slice(0, -1), right.at(transB ? 0 : 1)!])
    return w.node('Reshape', [via(w, 'Gemm', [rows, b], flags), target], [output])
  }
  const turned = (x: string, rank: number) => {
    const perm = Array.from({ length: rank }, (_, i) => (i < rank - 2 ? i : 2 * rank - 3 - i))
    return w.cached(`${x} turned`, (name) => w.node('Transpose', [x], [name], { perm }))
  }
  const operands = [transA ? turned(a, left.length) : a, transB ? turned(b, right.length) : b]
  if (alpha === 1) return w.node('MatMul', operands, [output])
  w.node('Mul', [via(w, 'MatMul', operands), w.float32(alpha)], [output])
}

/** `index[..., 1]`. */
const column = (w: Writer, index: string): string => via(w, 'Unsqueeze', [index, w.int64s([-1])])

const pickColumn = (w: Writer, x: string, index: string): string =>
  via(w, 'GatherElements', [x, column(w, index)], { axis: -1 })

export const webgpuEmitters: Emitters = {
  ...emitters,
  after: afterWith((w, x) => via(w, 'Equal', [x, x])),
  matmul: matmulWith(product),
  // MultiHeadAttention over more than a few keys is wrong there (onnxruntime 1.30 on SwiftShader).
  attention: attentionWith(product, false),
  tokenLogprob: tokenLogprobWith(product, pickColumn),
  pick: (w, _node, [x, index], outputs) => w.node('Squeeze', [pickColumn(w, x!, index!), w.int64s([-1])], outputs),
  unpick: (w, { attrs }, [x, index], outputs) => {
    const hit = via(w, 'Equal', [column(w, index!), w.range(attrs.width)])
    w.node('Mul', [via(w, 'Cast', [hit], { to: DATA_TYPE.float32 }), column(w, x!)], outputs)
  },
  scatterAdd: (w, node, [index, updates], outputs) => {
    const zeros = via(w, 'Expand', [w.float32(0), w.shape(node.outputs[0]!.dims)])
    const rows = via(w, 'Cast', [column(w, index!)], { to: DATA_TYPE.int64 })
    w.node('ScatterND', [zeros, rows, updates!], outputs, { reduction: 'add' })
  },
  slice: (w, node, [x], outputs) => {
    const { axis, start, end } = node.attrs
    if (node.inputs[0]!.dtype === 'float32' || typeof start !== 'number' || typeof end !== 'number')
      return emitters.slice(w, node, [x!], outputs)
    const rows = Array.from({ length: end - start }, (_, i) => start + i)
    w.node('Gather', [x!, w.int32s(rows)], outputs, { axis })
  },
  logSoftmax: (w, _node, [x], outputs) => {
    const top = via(w, 'ReduceMax', [x!, w.int64s([-1])], { keepdims: 1 })
    const shifted = via(w, 'Sub', [x!, top])
    const total = via(w, 'ReduceSum', [via(w, 'Exp', [shifted]), w.int64s([-1])], { keepdims: 1 })
    w.node('Sub', [shifted, via(w, 'Log', [total])], outputs)
  },
  // The index of the first element that equals the largest.
  argmax: (w, node, [x], outputs) => {
    const width = node.inputs[0]!.dim(-1)
    const top = via(w, 'ReduceMax', [x!, w.int64s([-1])], { keepdims: 1 })
    const hit = via(w, 'Equal', [x!, top])
    const at = via(w, 'Where', [hit, w.range(width), w.int32(2 ** 31 - 1)])
    w.node('ReduceMin', [at, w.int64s([-1])], outputs, { keepdims: 0 })
  },
  // The second output of the fused kernel is wrong (onnxruntime 1.30).
  rmsNorm: (w, node, [x, weight], outputs) => {
    if (!outputs[1]) return emitters.rmsNorm(w, node, [x!, weight!], outputs)
    const square = via(w, 'ReduceMean', [via(w, 'Mul', [x!, x!]), w.int64s([-1])], { keepdims: 1 })
    const rms = via(w, 'Sqrt', [via(w, 'Add', [square, w.float32(node.attrs.epsilon)])])
    w.node('Reciprocal', [rms], [outputs[1]])
    w.node('Mul', [via(w, 'Mul', [x!, outputs[1]]), weight!], [outputs[0]!])
  },
}
