/** How alike two answers are: the one place where the Judge looks beyond equality. */
import { openEmbedder } from '../../models/similarity/embedder.ts'
import type { TextEmbedder } from '../../models/similarity/embedder.ts'
import { normalizeAnswer } from './normalize.ts'

export interface Similarity {
  /** Recorded with every verdict's judge. */
  readonly name: string
  /** similarities_N in [0, 1] of each text to the reference: 1 where they are the same after normalisation. */
  compare(reference: string, texts: readonly string[]): Promise<number[]>
  /** dissimilarities_N in [0, 1]: 1 − the mean similarity of each text to all the others; 0 for a single text. */
  dissimilarities(texts: readonly string[]): Promise<number[]>
}

/** Similarity 1 after normalisation, else 0. */
export const exactSimilarity: Similarity = {
  name: 'exact',
  compare: async (reference, texts) =>
    texts.map((text) => Number(normalizeAnswer(text) === normalizeAnswer(reference))),
  dissimilarities: async (texts) => {
    const normal = texts.map(normalizeAnswer)
    const counts = new Map<string, number>()
    for (const text of normal) counts.set(text, (counts.get(text) ?? 0) + 1)
    return normal.map((text) => (texts.length < 2 ? 0 : 1 - (counts.get(text)! - 1) / (texts.length - 1)))
  },
}

/** Calibrated cosine similarity; equality after normalisation always counts 1. Embeddings are cached. */
export function embeddingSimilarity(embedder: TextEmbedder): Similarity {
  const { zero, one } = embedder.calibration
  const embed = cached(embedder)
  return {
    name: `${embedder.name}@${zero}-${one}`,
    async compare(reference, texts) {
      const target = normalizeAnswer(reference)
      const normal = texts.map(normalizeAnswer)
      const [anchor, ...others] = await embed([target, ...normal])
      return others.map((vector, i) =>
        normal[i] === target ? 1 : Math.min(1, Math.max(0, (dot(anchor!, vector) - zero) / (one - zero))),
      )
    },
    async dissimilarities(texts) {
      return meanDissimilarities(await embed(texts))
    },
  }
}

export interface SimilarityConfig {
  /** `embedding`: calibrated cosine through fastembed. `exact`: equality after normalisation only. */
  readonly kind: 'embedding' | 'exact'
  /** A directory, or a name that fastembed knows; null is the shipped model, which needs no download. */
  readonly model: string | null
}

/** Opens the similarity of a configuration. Throws as `openEmbedder`. */
export async function openSimilarity({ kind, model }: SimilarityConfig): Promise<Similarity> {
  return kind === 'exact' ? exactSimilarity : embeddingSimilarity(await openEmbedder(model ?? undefined))
}

/**
 * dissimilarities_N of unit vectors: 1 − mean cosine to the others, clipped to [0, 1]. The cosines of one vector to all
 * others add up to one product with the sum of all, so this is O(N), not O(N²).
 */
export function meanDissimilarities(vectors_N: readonly Float32Array[]): number[] {
  if (vectors_N.length < 2) return vectors_N.map(() => 0)
  const sum = new Float64Array(vectors_N[0]!.length)
  for (const vector of vectors_N) for (let d = 0; d < sum.length; d++) sum[d]! += vector[d]!
  return vectors_N.map((vector) => {
    const others = (dot(vector, sum) - dot(vector, vector)) / (vectors_N.length - 1)
    return Math.min(1, Math.max(0, 1 - others))
  })
}

/** Answers come from a small vocabulary and repeat all the time; the bound only guards against free text. */
const CACHE_LIMIT = 50_000

function cached(embedder: TextEmbedder): (texts: readonly string[]) => Promise<readonly Float32Array[]> {
  const cache = new Map<string, Float32Array>()
  return async (texts) => {
    const missing = [...new Set(texts)].filter((text) => !cache.has(text))
    const known = new Map(texts.map((text) => [text, cache.get(text)]))
    const fresh = missing.length > 0 ? await embedder.embed(missing) : []
    if (cache.size + missing.length > CACHE_LIMIT) cache.clear()
    missing.forEach((text, i) => {
      known.set(text, fresh[i]!)
      cache.set(text, fresh[i]!)
    })
    return texts.map((text) => known.get(text)!)
  }
}

function dot(a: ArrayLike<number>, b: ArrayLike<number>): number {
  let sum = 0
  for (let i = 0; i < a.length; i++) sum += a[i]! * b[i]!
  return sum
}
