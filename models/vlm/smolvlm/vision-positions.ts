/**
 * Patch position ids of the vision tower for a full square image of `patches` × `patches`, [patches²] row-major,
 * into a table of `tableSide`² positions. Hugging Face buckets fractional coordinates in float32, so that some sizes
 * (19, 25, 29, …) do not give 0..n−1; trained weights rely on it. (SmolVLMVisionEmbeddings, after NaViT.)
 */
export function visionPositionIds(patches: number, tableSide: number): Int32Array {
  const buckets = positionBuckets(patches, tableSide)
  return Int32Array.from({ length: patches * patches }, (_, i) => {
    const row = buckets[Math.floor(i / patches)]!
    return row * tableSide + buckets[i % patches]!
  })
}

/** Bucket of each row (equally of each column): the number of boundaries k / tableSide at or below i / patches. */
export function positionBuckets(patches: number, tableSide: number): number[] {
  const boundaries = boundariesOf(tableSide)
  const step = Math.fround(1 / patches)
  const last = Math.fround(1 - 1e-6)
  return Array.from({ length: patches }, (_, i) => {
    const coordinate = Math.min(Math.fround(i * step), last)
    return boundaries.filter((boundary) => boundary <= coordinate).length
  })
}

/**
 * `torch.arange(1/n, 1, 1/n)` in float32 as PyTorch's AVX2 kernel rounds it, which made the reference values: it works on
 * two registers of 8 lanes at a time, each lane an offset from its register's rounded start; what is left is computed singly.
 */
function boundariesOf(tableSide: number): Float32Array {
  const lanes = 8
  const spacing = 1 / tableSide
  const length = Math.max(0, Math.ceil((1 - spacing) / spacing))
  const vectorised = length - (length % (2 * lanes))
  return Float32Array.from({ length }, (_, k) => {
    if (k >= vectorised) return spacing + k * spacing
    const start = Math.fround(spacing + (k - (k % lanes)) * spacing)
    return start + (k % lanes) * spacing
  })
}
