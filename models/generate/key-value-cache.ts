/** Keys and values of a batch of token trees, one pair of arrays per layer: float32 [images, kvHeads, capacity, headDim]. */
import { f32, type HostTensor, type TensorMap } from '../tensor.ts'

export interface CacheShape {
  readonly layers: number
  readonly images: number
  readonly kvHeads: number
  readonly headDim: number
}

/** Columns beyond `used` are zero and must be masked. */
export class KeyValueCache {
  used = 0
  /** One column at first: not every device takes empty tensors. */
  capacity = 1
  #data: Float32Array[] = []

  /** @param most columns that can ever be needed. */
  constructor(
    readonly shape: CacheShape,
    private readonly most: number,
  ) {
    const size = shape.images * shape.kvHeads * shape.headDim
    this.#data = Array.from({ length: 2 * shape.layers }, () => new Float32Array(size))
  }

  /** Makes room for `columns` more; the capacity doubles when the arrays must be copied anyway. */
  reserve(columns: number): void {
    const needed = this.used + columns
    if (needed <= this.capacity) return
    const { images, kvHeads, headDim } = this.shape
    const capacity = Math.max(needed, Math.min(this.most, 2 * needed))
    this.#data = this.#data.map((old) => {
      const grown = new Float32Array(images * kvHeads * capacity * headDim)
      for (let row = 0; row < images * kvHeads; row++) {
        const from = row * this.capacity * headDim
        grown.set(old.subarray(from, from + this.used * headDim), row * capacity * headDim)
      }
      return grown
    })
    this.capacity = capacity
  }

  /** Appends columns to one layer's array (0 = key, 1 = value); call for all arrays, then `advance`. */
  write(layer: number, which: 0 | 1, columns: HostTensor): void {
    const { images, kvHeads, headDim } = this.shape
    const width = columns.dims[2]! * headDim
    const target = this.#data[2 * layer + which]!
    const source = columns.data as Float32Array
    // A loop: one `set` per row costs more than the few columns of a step.
    for (let row = 0; row < images * kvHeads; row++) {
      const [from, to] = [row * width, (row * this.capacity + this.used) * headDim]
      for (let i = 0; i < width; i++) target[to + i] = source[from + i]!
    }
  }

  advance(columns: number): void {
    this.used += columns
  }

  /** pastKey.* and pastValue.* of the whole capacity, uncopied. */
  feeds(): TensorMap {
    const { layers, images, kvHeads, headDim } = this.shape
    const dims = [images, kvHeads, this.capacity, headDim]
    const feeds: Record<string, HostTensor> = {}
    for (let layer = 0; layer < layers; layer++) {
      feeds[`pastKey.${layer}`] = f32(this.#data[2 * layer]!, dims)
      feeds[`pastValue.${layer}`] = f32(this.#data[2 * layer + 1]!, dims)
    }
    return feeds
  }
}
