/** Frozen weights in fewer bits, for sampling: how they are rounded, one tensor at a time. */
import type { HostTensor } from '../tensor.ts'

/** What the weights of a sampler are held in: float32; 8 bits, activations too; or 4 bits. */
export const PRECISIONS = ['fp32', 'int8', 'q4'] as const
export type Precision = (typeof PRECISIONS)[number]

/** The tensors of a rounded weight, as `linearInt8` and `linearQ4` of the graph take them. */
export interface Rounded<D extends 'int8' | 'uint8'> {
  readonly weight: HostTensor<D>
  readonly scales: HostTensor<'float32'>
}

/** Inputs that share a scale in 4 bits; more of them make a smaller and a coarser model. */
export const Q4_BLOCK = 32

/** Bytes that a product reads of each weight. */
export const BYTES_PER_WEIGHT: Readonly<Record<Precision, number>> = { fp32: 4, int8: 1, q4: 0.5 + 4 / Q4_BLOCK }

/** Largest level of 8 bits: −128 is left out, so that a weight and its negative are rounded alike. */
const INT8_LEVELS = 127
/** Levels of 4 bits: 0..15, and 8 is zero. */
const Q4_ZERO = 8
const Q4_MOST = 15

/** Columns transposed at once: what is written stays in the cache. */
const STRIP = 64

/**
 * Rounds W [out, in] to 8 bits with one scale for each output, and transposes it.
 *
 * @returns weight int8 [in, out], scales float32 [out].
 */
export function roundInt8(weight: Float32Array, [out, into]: readonly [number, number]): Rounded<'int8'> {
  const scales = new Float32Array(out)
  const inverses = new Float64Array(out)
  const levels = new Int8Array(weight.length)
  for (let from = 0; from < out; from += STRIP) {
    const to = Math.min(out, from + STRIP)
    for (let o = from; o < to; o++) {
      const most = largest(weight, o * into, (o + 1) * into)
      scales[o] = most / INT8_LEVELS
      inverses[o] = most === 0 ? 0 : INT8_LEVELS / most
    }
    for (let i = 0; i < into; i++)
      // `Math.round` in half the time: what is truncated is positive.
      for (let o = from; o < to; o++) levels[i * out + o] = ((weight[o * into + i]! * inverses[o]! + 128.5) | 0) - 128
  }
  return {
    weight: { dtype: 'int8', dims: [into, out], data: levels },
    scales: { dtype: 'float32', dims: [out], data: scales },
  }
}

/**
 * Rounds W [out, in] to 4 bits with one scale for every `block` inputs of each output, chosen so that the largest value
 * of a block is exact (symmetric, as onnxruntime's MatMulNBits reads it without zero points).
 *
 * @returns weight uint8 [out, blocks, block/2], the first of two values in the lower half; scales float32 [out·blocks].
 */
export function roundQ4(
  weight: Float32Array,
  [out, into]: readonly [number, number],
  block: number = Q4_BLOCK,
): Rounded<'uint8'> {
  const blocks = Math.ceil(into / block)
  const scales = new Float32Array(out * blocks)
  const packed = new Uint8Array((out * blocks * block) / 2)
  for (let b = 0; b < out * blocks; b++) {
    const column = (b % blocks) * block
    const from = Math.floor(b / blocks) * into + column
    const to = from + Math.min(block, into - column)
    const scale = signedLargest(weight, from, to) / -Q4_ZERO
    scales[b] = scale
    const inverse = scale === 0 ? 0 : 1 / scale
    for (let i = from; i < to; i++) {
      const level = Math.min(Q4_MOST, (weight[i]! * inverse + Q4_ZERO + 0.5) | 0)
      packed[(b * block + i - from) >> 1]! |= (i - from) % 2 === 0 ? level : level << 4
    }
  }
  return {
    weight: { dtype: 'uint8', dims: [out, blocks, block / 2], data: packed },
    scales: { dtype: 'float32', dims: [out * blocks], data: scales },
  }
}

function largest(values: Float32Array, from: number, to: number): number {
  let most = 0
  for (let i = from; i < to; i++) most = Math.max(most, Math.abs(values[i]!))
  return most
}

/** The value that is farthest from zero. */
function signedLargest(values: Float32Array, from: number, to: number): number {
  let most = 0
  for (let i = from; i < to; i++) if (Math.abs(values[i]!) > Math.abs(most)) most = values[i]!
  return most
}
