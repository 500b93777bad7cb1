/**
 * Counter-fitting (Mrkšić et al. 2016): word vectors of co-occurrence put words that exclude each other ('red', 'blue')
 * nearer than synonyms ('big', 'large'), because both stand in the same sentences. Synonyms are pulled together and
 * neighbours that are neither synonyms nor relatives are pushed apart, until the cosine tells answers apart.
 */

export interface Pair {
  readonly a: number
  readonly b: number
}

/** Neighbours above this cosine may be mistaken for each other, so they are pushed apart. */
const NEIGHBOUR_COSINE = 0.35
/** Cosines that the pushed and the pulled pairs should keep to. */
const REPEL_TO = 0.15
const ATTRACT_TO = 0.9
const ROUNDS = 20
const RATE = 0.1
/** Pull towards the original vector, so that words without any constraint keep their meaning. */
const STAY = 0.02

/** Pairs of rows of unit vectors [V, D] whose cosine is above the bound, without the excepted ones. */
export function neighbours(vectors: readonly Float32Array[], excepted: (a: number, b: number) => boolean): Pair[] {
  const pairs: Pair[] = []
  for (let a = 0; a < vectors.length; a++) {
    for (let b = a + 1; b < vectors.length; b++) {
      if (dot(vectors[a]!, vectors[b]!) > NEIGHBOUR_COSINE && !excepted(a, b)) pairs.push({ a, b })
    }
  }
  return pairs
}

/** Returns new unit vectors; deterministic. */
export function counterFit(
  original: readonly Float32Array[],
  attract: readonly Pair[],
  repel: readonly Pair[],
): Float32Array[] {
  const vectors = original.map((vector) => vector.slice())
  for (let round = 0; round < ROUNDS; round++) {
    for (const { a, b } of repel) {
      const excess = dot(vectors[a]!, vectors[b]!) - REPEL_TO
      if (excess > 0) move(vectors[a]!, vectors[b]!, -RATE * excess)
    }
    for (const { a, b } of attract) {
      const lack = ATTRACT_TO - dot(vectors[a]!, vectors[b]!)
      if (lack > 0) move(vectors[a]!, vectors[b]!, RATE * lack)
    }
    vectors.forEach((vector, i) => {
      for (let d = 0; d < vector.length; d++) vector[d]! += STAY * original[i]![d]!
      toUnit(vector)
    })
  }
  return vectors
}

/** Moves both towards each other by a part of the other (apart for a negative one) and keeps them of unit length. */
function move(a: Float32Array, b: Float32Array, part: number): void {
  for (let d = 0; d < a.length; d++) {
    const before = a[d]!
    a[d]! += part * b[d]!
    b[d]! += part * before
  }
  toUnit(a)
  toUnit(b)
}

export function toUnit(vector: Float32Array): Float32Array {
  const norm = Math.sqrt(dot(vector, vector))
  for (let d = 0; d < vector.length; d++) vector[d]! /= norm
  return vector
}

export function dot(a: Float32Array, b: Float32Array): number {
  let sum = 0
  for (let d = 0; d < a.length; d++) sum += a[d]! * b[d]!
  return sum
}
