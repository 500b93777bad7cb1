/** A key-value cache that never leaves the memory of a device: the graph appends, and its outputs are fed again. */
import { f32, isHost, type Tensor, type Tensors } from '../tensor.ts'
import type { CacheShape, KeyValueCache } from './key-value-cache.ts'

/** The model returns joinedKey.* and joinedValue.*: those that it was fed, grown by the new tokens. */
export class DeviceCache implements KeyValueCache {
  /** One column at first, which holds no key: not every device takes empty tensors. */
  width = 1
  #tensors: Readonly<Record<string, Tensor>>

  constructor({ layers, images, kvHeads, headDim }: CacheShape) {
    const empty = f32(new Float32Array(images * kvHeads * headDim), [images, kvHeads, 1, headDim])
    const names = Array.from({ length: layers }, (_, layer) => [`pastKey.${layer}`, `pastValue.${layer}`]).flat()
    this.#tensors = Object.fromEntries(names.map((name) => [name, empty]))
  }

  get next(): number {
    return this.width
  }

  feeds(): Tensors {
    return this.#tensors
  }

  append(outputs: Tensors, columns: number): void {
    const grown = Object.keys(this.#tensors).map((name) => [name, outputs[name.replace('past', 'joined')]!] as const)
    this.dispose()
    this.#tensors = Object.fromEntries(grown)
    this.width += columns
  }

  dispose(): void {
    for (const tensor of Object.values(this.#tensors)) if (!isHost(tensor)) tensor.dispose()
    this.#tensors = {}
  }
}
