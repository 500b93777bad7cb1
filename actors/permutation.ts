/** Which image is used when: every image once per epoch, in an order that depends on the seed and the epoch alone. */
import { createHash } from 'node:crypto'

/** Index of the image in slot `slot` (0, 1, 2, …) of a run over `count` images. */
export class ImageOrder {
  readonly #count: number
  readonly #seed: number
  #epoch = -1
  #order: Uint32Array = new Uint32Array()

  constructor(count: number, seed: number) {
    if (count < 1) throw new RangeError('there are no images to choose from')
    this.#count = count
    this.#seed = seed
  }

  at(slot: number): number {
    const epoch = Math.floor(slot / this.#count)
    if (epoch !== this.#epoch) {
      this.#epoch = epoch
      this.#order = shuffled(this.#count, `visplay images ${this.#seed} ${epoch}`)
    }
    return this.#order[slot % this.#count]!
  }
}

/** Fisher-Yates; the random numbers are SHA-256 of the key and the position, the same on every machine. */
function shuffled(count: number, key: string): Uint32Array {
  const order = Uint32Array.from({ length: count }, (_, i) => i)
  let block = Buffer.alloc(0)
  for (let i = count - 1, word = 0; i > 0; i--, word++) {
    if (word % WORDS === 0)
      block = createHash('sha256')
        .update(`${key} ${word / WORDS}`)
        .digest()
    const other = Math.floor((block.readUInt32LE(4 * (word % WORDS)) / 2 ** 32) * (i + 1))
    const swap = order[i]!
    order[i] = order[other]!
    order[other] = swap
  }
  return order
}

/** 32-bit words of a SHA-256. */
const WORDS = 8
