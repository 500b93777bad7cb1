/** Tensors one after the other, along the first axis. */
import { f32, type HostTensor } from '../tensor.ts'

/** The only part itself when there is one. */
export function concatFloats(parts: readonly Float32Array[]): Float32Array {
  if (parts.length === 1) return parts[0]!
  const all = new Float32Array(parts.reduce((n, p) => n + p.length, 0))
  let at = 0
  for (const part of parts) {
    all.set(part, at)
    at += part.length
  }
  return all
}

/** Tensors that differ in their first size only. Throws when there is none, or the others differ. */
export function stackRows(tensors: readonly HostTensor<'float32'>[]): HostTensor<'float32'> {
  const [first] = tensors
  if (!first) throw new RangeError('nothing to stack')
  if (tensors.length === 1) return first
  const rest = first.dims.slice(1)
  for (const { dims } of tensors) {
    if (dims.slice(1).join() !== rest.join())
      throw new RangeError(`cannot stack [${dims.join(', ')}] on [${first.dims.join(', ')}]`)
  }
  return f32(concatFloats(tensors.map((t) => t.data)), [tensors.reduce((n, t) => n + t.dims[0]!, 0), ...rest])
}
