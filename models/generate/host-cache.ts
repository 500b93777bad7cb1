/** A key-value cache in plain arrays, one pair per layer: float32 [images, kvHeads, width, headDim]. */
import { f32, type HostTensor, isHost, type TensorMap, type Tensors } from '../tensor.ts'
import type { CacheShape, KeyValueCache } from './key-value-cache.ts'

/** The model returns key.* and value.* of the new tokens only. Columns from `next` on are zero and must be masked. */
export class HostCache implements KeyValueCache {
  next = 0
  /** One column at first: not every device takes empty tensors. */
  width = 1
  #data: Float32Array[] = []

  /** @param most columns that can ever be needed. */
  constructor(
    readonly shape: CacheShape,
    private readonly most: number,
  ) {
    const size = shape.images * shape.kvHeads * shape.headDim
    this.#data = Array.from({ length: 2 * shape.layers }, () => new Float32Array(size))
  }

  append(outputs: Tensors, columns: number): void {
    this.#reserve(columns)
    for (let layer = 0; layer < this.shape.layers; layer++) {
      this.#write(layer, 0, outputs[`key.${layer}`]!)
      this.#write(layer, 1, outputs[`value.${layer}`]!)
    }
    this.next += columns
  }

  feeds(): TensorMap {
    const { layers, images, kvHeads, headDim } = this.shape
    const dims = [images, kvHeads, this.width, headDim]
    const feeds: Record<string, HostTensor> = {}
    for (let layer = 0; layer < layers; layer++) {
      feeds[`pastKey.${layer}`] = f32(this.#data[2 * layer]!, dims)
      feeds[`pastValue.${layer}`] = f32(this.#data[2 * layer + 1]!, dims)
    }
    return feeds
  }

  dispose(): void {
    this.#data = []
  }

  /** Makes room for `columns` more; the width doubles when the arrays must be copied anyway. */
  #reserve(columns: number): void {
    const needed = this.next + columns
    if (needed <= this.width) return
    const { images, kvHeads, headDim } = this.shape
    const width = Math.max(needed, Math.min(this.most, 2 * needed))
    this.#data = this.#data.map((old) => {
      const grown = new Float32Array(images * kvHeads * width * headDim)
      for (let row = 0; row < images * kvHeads; row++) {
        const from = row * this.width * headDim
        grown.set(old.subarray(from, from + this.next * headDim), row * width * headDim)
      }
      return grown
    })
    this.width = width
  }

  /** Columns of one layer's array (0 = key, 1 = value). */
  #write(layer: number, which: 0 | 1, columns: Tensors[string]): void {
    if (!isHost(columns)) throw new Error('the new keys and values were left on the device')
    const { images, kvHeads, headDim } = this.shape
    const width = columns.dims[2]! * headDim
    const target = this.#data[2 * layer + which]!
    const source = columns.data as Float32Array
    // A loop: one `set` per row costs more than the few columns of a step.
    for (let row = 0; row < images * kvHeads; row++) {
      const [from, to] = [row * width, (row * this.width + this.next) * headDim]
      for (let i = 0; i < width; i++) target[to + i] = source[from + i]!
    }
  }
}
