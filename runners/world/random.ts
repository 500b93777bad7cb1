/**
 * Seeded random numbers that are the same on every platform: xoshiro128** (Blackman and Vigna, 2018) on 32-bit integers,
 * seeded by hashing a tuple of keys (splitmix32 finaliser). A stream belongs to its keys alone, as in
 * `new Random(seed, 'scene', index)`, so that item 17 of a data set does not depend on how many were made before it.
 */
export class Random {
  #a: number
  #b: number
  #c: number
  #d: number

  constructor(...keys: readonly (number | string)[]) {
    let state = 0x9e3779b9
    for (const key of keys) for (const word of wordsOf(key)) state = mix(state ^ word)
    this.#a = state = mix(state + 0x9e3779b9)
    this.#b = state = mix(state + 0x9e3779b9)
    this.#c = state = mix(state + 0x9e3779b9)
    this.#d = mix(state + 0x9e3779b9) | 1
  }

  /** Uniform integer in [0, 2³²). */
  uint32(): number {
    const product = Math.imul(this.#b, 5)
    const result = Math.imul((product << 7) | (product >>> 25), 9)
    const shifted = this.#b << 9
    this.#c ^= this.#a
    this.#d ^= this.#b
    this.#b ^= this.#c
    this.#a ^= this.#d
    this.#c ^= shifted
    this.#d = (this.#d << 11) | (this.#d >>> 21)
    return result >>> 0
  }

  /** Uniform in [0, 1), 32 bits fine. */
  float(): number {
    return this.uint32() / 0x1_0000_0000
  }

  uniform(low: number, high: number): number {
    return low + (high - low) * this.float()
  }

  /** Uniform integer in [0, n). */
  integer(n: number): number {
    return Math.floor(this.float() * n)
  }

  chance(probability: number): boolean {
    return this.float() < probability
  }

  /** One element; throws on an empty list. */
  pick<T>(list: readonly T[]): T {
    if (list.length === 0) throw new RangeError('cannot pick from an empty list')
    return list[this.integer(list.length)] as T
  }

  /** A shuffled copy (Fisher–Yates). */
  shuffle<T>(list: readonly T[]): T[] {
    const out = [...list]
    for (let i = out.length - 1; i > 0; i--) {
      const j = this.integer(i + 1)
      const held = out[i] as T
      out[i] = out[j] as T
      out[j] = held
    }
    return out
  }
}

function mix(value: number): number {
  let x = value | 0
  x = Math.imul(x ^ (x >>> 16), 0x21f0aaad)
  x = Math.imul(x ^ (x >>> 15), 0x735a2d97)
  return x ^ (x >>> 15)
}

/** 32-bit words of a key, with a leading length or tag so that ('a', 'b') and ('ab') differ. */
function wordsOf(key: number | string): number[] {
  if (typeof key === 'string') return [key.length + 0x5bd1e995, ...Array.from(key, (c) => c.codePointAt(0) as number)]
  const bits = new Uint32Array(new Float64Array([key]).buffer)
  return [bits[0] as number, bits[1] as number]
}
