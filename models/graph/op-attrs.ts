/**
 * Every op and its attributes. The tables of shapes (shapes.ts), gradients (vjps.ts), ONNX emission (emitters.ts) and
 * cases to check them on (op-cases.ts) are total over these keys: an op without a rule does not compile.
 */
import type { DType } from '../tensor.ts'
import type { Dim, Dims } from './graph.ts'

type None = Record<string, never>

export interface OpAttrs {
  add: None
  sub: None
  mul: None
  div: None
  minimum: None
  maximum: None
  less: None
  greaterOrEqual: None
  equal: None
  and: None
  not: None
  neg: None
  exp: None
  log: None
  sqrt: None
  tanh: None
  sigmoid: None
  erf: None
  /** x·sigmoid(x); the second output is sigmoid(x). */
  silu: None
  geluTanh: None
  stopGradient: None
  /**
   * The first input, not before the others (float32, of which nothing else is used) are there: without it, the runtime
   * computes what needs no input, such as a wider copy of a weight, long before it is used.
   */
  after: None
  cast: { to: DType }
  where: None
  /** Batched product; `transA`/`transB` swap the last two axes, `alpha` scales the result. */
  matmul: { transA: boolean; transB: boolean; alpha: number }
  /** Over the last axis. */
  softmax: None
  logSoftmax: None
  reduceSum: { axes: readonly number[]; keepdims: boolean }
  reduceMean: { axes: readonly number[]; keepdims: boolean }
  reduceMax: { axes: readonly number[]; keepdims: boolean }
  cumsum: { axis: number }
  /** Index of the largest element of the last axis (the first one at a tie), int32. */
  argmax: None
  reshape: { dims: Dims }
  transpose: { perm: readonly number[] }
  broadcastTo: { dims: Dims }
  concat: { axis: number }
  /** `start..end` of an axis; ends may be symbolic where no gradient flows. */
  slice: { axis: number; start: Dim; end: Dim }
  /** Zeros before and after along an axis: the transpose of slice. */
  pad: { axis: number; before: number; after: number }
  /** Rows of axis 0: `table[indices]`. */
  gather: None
  /** Indices of the true elements of a bool vector, int32; how many there are gets the symbol `size`. */
  nonzero: { size: string }
  /** Adds rows of `updates` into zeros with `rows` rows: the transpose of gather. */
  scatterAdd: { rows: Dim }
  /** One element of the last axis per position: `x[..., index[...]]`. */
  pick: None
  /** The transpose of pick: zeros of width `width` with the value at the index. */
  unpick: { width: Dim }
  /** 0..n−1 as int32, n = size of an axis of the input. */
  arange: { axis: number }
  /** (x − mean)/std over the last axis, scaled and shifted; outputs y, mean, 1/std. */
  layerNorm: { epsilon: number }
  /** x / rms(x) over the last axis, scaled; outputs y, 1/rms. */
  rmsNorm: { epsilon: number }
  /** Rotary embedding (half-split) of [B, N, heads·d] at int32 positions [B, N] with tables [P, d/2]; `inverse` turns back. */
  rotary: { heads: number; inverse: boolean }
  /**
   * Softmax attention with grouped queries: q [B, N, heads·d], k and v [B, T, kvHeads·d] and, optionally, a bias
   * [B, N, T] on the scores, which gets no gradient. Outputs [B, N, heads·d]; then, for the gradient, probabilities
   * [B, kvHeads, heads/kvHeads·N, T] and q, k, v by head.
   */
  attention: { heads: number; kvHeads: number }
  /**
   * Log-probabilities of targets int32 [P] under softmax(x·Wᵀ), x [P, H], W [V, H]. Outputs log p [P], the logarithms of
   * the normalisers [P], all probabilities [P, V].
   */
  tokenLogprob: None
  /**
   * x [..., in] through a linear layer with int8 weights [in, out] and a scale for each output [out]. Each row of x is
   * rounded to 8 bits by its own largest value, so that a row does not depend on those beside it. No gradient.
   */
  linearInt8: None
  /**
   * The same with 4-bit weights: uint8 [out, blocks, block/2], two to a byte and 8 for zero, with a scale for each block
   * of `block` inputs [out·blocks]. No gradient.
   */
  linearQ4: { block: number }
}

export type OpName = keyof OpAttrs
