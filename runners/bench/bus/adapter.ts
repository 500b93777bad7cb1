/** Weights of a given size, as many tensors as an adapter has. */
import { f32, type Weights } from '../../../models/tensor.ts'

const TENSORS = 64

/** About `bytes` of float32, another content for every `version`. */
export function adapterOf(bytes: number, version: number): Weights {
  const length = Math.max(1, Math.round(bytes / 4 / TENSORS))
  return Object.fromEntries(
    Array.from({ length: TENSORS }, (_, i) => {
      const data = new Float32Array(length).fill(version + i / TENSORS)
      return [`layer.${i}.lora_A.weight`, f32(data, [length])]
    }),
  )
}
