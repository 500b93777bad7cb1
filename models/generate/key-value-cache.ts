/**
 * Keys and values of a batch of token trees. Where they are is the matter of the model that made the cache; the sampler
 * only needs to know at which columns the keys of its tokens are.
 */
import type { Tensors } from '../tensor.ts'

export interface CacheShape {
  readonly layers: number
  readonly images: number
  readonly kvHeads: number
  readonly headDim: number
}

export interface KeyValueCache {
  /** Columns that new tokens attend to; those that hold no key must be masked. */
  readonly width: number
  /** The column of the next new token. */
  readonly next: number
  /** pastKey.* and pastValue.* [images, kvHeads, width, headDim], uncopied. */
  feeds(): Tensors
  /** Takes what the model computed for `columns` new tokens of each image. */
  append(outputs: Tensors, columns: number): void
  dispose(): void
}
