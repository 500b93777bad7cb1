/** Whether stored floating-point numbers are finite, without widening them. */
import { CheckpointError } from './checkpoint-error.ts'
import { bf16ToF32, f16ToF32 } from './float16.ts'

/**
 * Throws a `CheckpointError` that names the tensor when a number of a piece of it is NaN or infinite: when all bits of its
 * exponent are set. `bytes` starts at a multiple of 4 of its buffer; `first` is the index of its first number.
 */
export function assertFiniteBits(
  tensor: string,
  dtype: 'F32' | 'BF16' | 'F16',
  bytes: Uint8Array,
  first: number,
  file: string,
): void {
  if (dtype === 'F32') {
    const words = new Uint32Array(bytes.buffer, bytes.byteOffset, bytes.length >> 2)
    const at = firstFull(words, 0x7f800000)
    if (at >= 0) throw notFinite(tensor, first + at, new Float32Array(words.buffer, bytes.byteOffset)[at]!, file)
    return
  }
  const halves = new Uint16Array(bytes.buffer, bytes.byteOffset, bytes.length >> 1)
  const at = firstFull(halves, dtype === 'BF16' ? 0x7f80 : 0x7c00)
  if (at < 0) return
  const widen = dtype === 'BF16' ? bf16ToF32 : f16ToF32
  throw notFinite(tensor, first + at, widen(halves.subarray(at, at + 1))[0]!, file)
}

export function notFinite(tensor: string, index: number, value: number, file: string): CheckpointError {
  const reason = `element ${index} is ${value}; the weights are damaged, use another checkpoint`
  return new CheckpointError(reason, { file, tensor })
}

/** Index of the first element with all bits of `mask` set, or −1. */
function firstFull(words: Uint16Array | Uint32Array, mask: number): number {
  for (let i = 0; i < words.length; i++) if ((words[i]! & mask) === mask) return i
  return -1
}
