/** How products with rounded weights are written: contributed ops, which round the rows of x as well. */
import type { Emit } from './emitters.ts'
import { type Writer } from './onnx-writer.ts'

/** Accuracy level of MatMulNBits: blocks of a row are rounded to 8 bits. The fastest one for the few rows of a step. */
const IN_INT8 = 4
/** Levels of 8 bits on either side of zero, which is 128: processors multiply unsigned numbers by signed ones. */
const LEVELS = 127
const ZERO = 128

/**
 * Rows of x rounded to 8 bits, and the largest size of each; made once for all layers that take x. Of a row of zeros the
 * levels are undefined, and multiplied by a size of 0.
 */
function roundedRows(w: Writer, x: string): { rows: string; most: string } {
  const most = w.cached(`${x} most`, (name) => {
    const size = w.fresh('size')
    w.node('Abs', [x], [size])
    w.node('ReduceMax', [size, w.int64s([-1])], [name], { keepdims: 1 })
  })
  const rows = w.cached(`${x} rounded`, (name) => {
    const part = w.fresh('part')
    w.node('Div', [x, most], [part])
    w.node('QuantizeLinear', [part, w.float32(1 / LEVELS), w.uint8(ZERO)], [name])
  })
  return { rows, most }
}

export const emitLinearInt8: Emit<'linearInt8'> = (w, _node, [x, weight, scales], outputs) => {
  const { rows, most } = roundedRows(w, x!)
  const y = w.fresh('columns')
  const inputs = [rows, weight!, w.float32(1 / LEVELS), scales!, w.uint8(ZERO)]
  w.node('MatMulIntegerToFloat', inputs, [y], {}, 'com.microsoft')
  w.node('Mul', [y, most], outputs)
}

export const emitLinearQ4: Emit<'linearQ4'> = (w, node, inputs, outputs) => {
  const sizes = { K: Number(node.inputs[0]!.dim(-1)), N: Number(node.outputs[0]!.dim(-1)) }
  const format = { bits: 4, block_size: node.attrs.block, accuracy_level: IN_INT8 }
  w.node('MatMulNBits', inputs, outputs, { ...sizes, ...format }, 'com.microsoft')
}
