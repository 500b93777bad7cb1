/** Named weights as bytes: adapters, optimizer states and gradients travel as safetensors blobs, which any tool reads. */
import { encodeHeader, headerLength, parseHeader } from '../models/io/safetensors-header.ts'
import { f32, type HostTensor, type Weights } from '../models/tensor.ts'

const PREFIX_BYTES = 8

/** Safetensors bytes, float32, names sorted: equal weights give equal bytes, hence the same blob. */
export function encodeWeights(weights: Weights): Uint8Array {
  const names = Object.keys(weights).toSorted()
  const header = encodeHeader(
    names.map((name) => [name, 'F32', weights[name]!.dims]),
    { format: 'pt' },
  )
  const total = names.reduce((sum, name) => sum + weights[name]!.data.byteLength, header.length)
  const bytes = new Uint8Array(total)
  bytes.set(header)
  let offset = header.length
  for (const name of names) {
    const { buffer, byteOffset, byteLength } = weights[name]!.data
    bytes.set(new Uint8Array(buffer, byteOffset, byteLength), offset)
    offset += byteLength
  }
  return bytes
}

/** Inverse of `encodeWeights`; views into `bytes` where they are aligned. `blob` is named in errors. */
export function decodeWeights(bytes: Uint8Array, blob: string): Weights {
  const aligned = bytes.byteOffset % 4 === 0 ? bytes : bytes.slice()
  const length = headerLength(aligned.subarray(0, PREFIX_BYTES), aligned.length, blob)
  const header = parseHeader(aligned.subarray(PREFIX_BYTES, PREFIX_BYTES + length), aligned.length, blob)
  const weights: Record<string, HostTensor<'float32'>> = {}
  for (const [name, info] of header.tensors) {
    if (info.dtype !== 'F32') throw new RangeError(`${blob}: tensor ${name} is ${info.dtype}, weights travel as F32`)
    const data = new Float32Array(aligned.buffer, aligned.byteOffset + info.offset, info.length / 4)
    weights[name] = f32(data, info.dims)
  }
  return weights
}
