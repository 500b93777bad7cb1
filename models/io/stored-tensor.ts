/** Tensors that stay in their file until they are needed: what frozen weights are. */
import { closeSync, openSync, readSync } from 'node:fs'
import type { HostTensor } from '../tensor.ts'
import { CheckpointError } from './checkpoint-error.ts'
import { bf16ToF32, f16ToF32 } from './float16.ts'
import { reasonOf } from './json-file.ts'
import { READ_BYTES } from './read-range.ts'

/**
 * Little-endian floating-point numbers at `offset` (bytes) of a file, `length` bytes, dense and row-major. onnxruntime maps
 * the file: its pages are shared by all sessions and all processes, and the system may drop them. A file that is truncated
 * while it is mapped ends the process (SIGBUS); loading checks sizes, and checkpoints are replaced, never rewritten in place.
 */
export interface StoredTensor {
  readonly dtype: 'F32' | 'BF16' | 'F16'
  readonly dims: readonly number[]
  /** Absolute, without symbolic links. */
  readonly file: string
  readonly offset: number
  readonly length: number
}

/** A weight that no update changes: in a file, or in memory. */
export type FrozenWeight = StoredTensor | HostTensor<'float32'>
export type FrozenWeights = Readonly<Record<string, FrozenWeight>>

export const isStored = (weight: FrozenWeight): weight is StoredTensor => 'file' in weight

/**
 * The float32 values of a frozen weight, widened exactly; read from the file at every call, on the calling thread.
 * Throws a CheckpointError when the file cannot be read.
 */
export function floatsOf(weight: FrozenWeight): Float32Array {
  if (!isStored(weight)) return weight.data
  const bytes = readBytes(weight)
  switch (weight.dtype) {
    case 'F32':
      return new Float32Array(bytes.buffer)
    case 'BF16':
      return bf16ToF32(new Uint16Array(bytes.buffer))
    case 'F16':
      return f16ToF32(new Uint16Array(bytes.buffer))
  }
}

function readBytes({ file, offset, length }: StoredTensor): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(length)
  try {
    const fd = openSync(file, 'r')
    try {
      for (let done = 0; done < length;) {
        const n = readSync(fd, bytes, done, Math.min(READ_BYTES, length - done), offset + done)
        if (n === 0) throw new Error(`truncated at byte ${offset + done}`)
        done += n
      }
    } finally {
      closeSync(fd)
    }
  } catch (cause) {
    throw new CheckpointError(`cannot be read any more (${reasonOf(cause)})`, { file, cause })
  }
  return bytes
}
