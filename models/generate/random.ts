/**
 * Counter-based random numbers: a sample depends on what it is, never on the batch that it happened to be in.
 * The generator is the 32-bit finaliser of MurmurHash3, applied along the words of the counter.
 */

function mix(h: number): number {
  h ^= h >>> 16
  h = Math.imul(h, 0x85ebca6b)
  h ^= h >>> 13
  h = Math.imul(h, 0xc2b2ae35)
  return (h ^ (h >>> 16)) >>> 0
}

/** A 32-bit key of a seed and a name, to be combined with counters. */
export function randomKey(seed: number, name: string): number {
  let h = mix(seed ^ 0x9e3779b9)
  for (let i = 0; i < name.length; i++) h = mix(Math.imul(h, 31) + name.charCodeAt(i) + 0x7f4a7c15)
  return h
}

/** Uniform in [0, 1) with 24 bits (exact in float32), for sample `sample` and token `position` under a key. */
export function uniform(key: number, sample: number, position: number): number {
  const h = mix(mix(key + Math.imul(sample + 1, 0x9e3779b1)) + Math.imul(position + 1, 0x85ebca77))
  return (h >>> 8) / 0x1000000
}
