/**
 * Average-linkage clustering by the nearest-neighbour chain (Murtagh 1983), cut at a distance: the clusters that
 * scikit-learn's `AgglomerativeClustering(linkage='average', distance_threshold)` finds. O(N²) time; `distances` [N, N]
 * is symmetric and is overwritten. `weights_N` counts how many equal points each row stands for.
 * Returns labels_N; equal labels mean the same cluster.
 */
export function averageLinkage(distances: Float32Array, weights_N: readonly number[], threshold: number): number[] {
  const n = weights_N.length
  if (distances.length !== n * n) throw new RangeError(`${distances.length} distances for ${n} points`)
  const sizes = Float64Array.from(weights_N)
  const labels = weights_N.map((_, i) => i)
  // Clusters that may still merge. One whose nearest neighbour is too far never merges: average linkage is reducible,
  // so merging others cannot bring anything nearer to it than they were.
  const open = new Set(labels)
  const chain: number[] = []
  while (open.size > 0) {
    if (chain.length === 0) chain.push(open.values().next().value!)
    const tip = chain.at(-1)!
    const before = chain.at(-2)
    const nearest = nearestOf(tip, before, open, distances, n)
    if (nearest === null || distances[tip * n + nearest]! >= threshold) {
      open.delete(tip)
      chain.length = 0
    } else if (nearest !== before) chain.push(nearest)
    else {
      merge(before, tip, open, distances, sizes)
      for (let i = 0; i < n; i++) if (labels[i] === tip) labels[i] = before
      chain.length -= 2
    }
  }
  return labels
}

/** Nearest open cluster; among equals the chain's previous one, so that the chain ends. */
function nearestOf(
  tip: number,
  before: number | undefined,
  open: ReadonlySet<number>,
  distances: Float32Array,
  n: number,
): number | null {
  let nearest = before ?? null
  let least = before === undefined ? Infinity : distances[tip * n + before]!
  for (const other of open) {
    const distance = distances[tip * n + other]!
    if (other !== tip && distance < least) {
      least = distance
      nearest = other
    }
  }
  return nearest
}

/** Merges cluster `from` into `into`: distances to the others become size-weighted means. */
function merge(into: number, from: number, open: Set<number>, distances: Float32Array, sizes: Float64Array): void {
  const n = sizes.length
  const total = sizes[into]! + sizes[from]!
  open.delete(from)
  for (const other of open) {
    if (other === into) continue
    const mean = (sizes[into]! * distances[into * n + other]! + sizes[from]! * distances[from * n + other]!) / total
    distances[into * n + other] = mean
    distances[other * n + into] = mean
  }
  sizes[into] = total
}
