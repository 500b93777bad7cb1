/** Seeded misfortune for deterministic simulation: what can happen to the delivery of a task. Shares are in [0, 1]. */
export interface Faults {
  readonly seed: number
  /** Share of deliveries that never arrive; the task comes back after the acknowledgement time. */
  readonly drop?: number
  /** Share of deliveries that are made a second time although the first arrived. */
  readonly duplicate?: number
  /** Share of deliveries that take a random task of the queue instead of the oldest. */
  readonly reorder?: number
  /** A published task becomes visible after up to this many milliseconds. */
  readonly delayMs?: number
}

/** Decisions of a `Faults`, reproducible from its seed. */
export interface Fate {
  drops(): boolean
  duplicates(): boolean
  /** Index of the next task of a queue of `length`. */
  picks(length: number): number
  delayMs(): number
}

/** Without faults nothing goes wrong and nothing is random. */
export function fate(faults: Faults | undefined): Fate {
  if (!faults) return { drops: () => false, duplicates: () => false, picks: () => 0, delayMs: () => 0 }
  const random = mulberry32(faults.seed)
  const happens = (share = 0) => share > 0 && random() < share
  return {
    drops: () => happens(faults.drop),
    duplicates: () => happens(faults.duplicate),
    picks: (length) => (happens(faults.reorder) ? Math.floor(random() * length) : 0),
    delayMs: () => (faults.delayMs ? Math.floor(random() * faults.delayMs) : 0),
  }
}

/** Tommy Ettinger's mulberry32: 32 bits of state, uniform in [0, 1). */
function mulberry32(seed: number): () => number {
  let state = seed >>> 0
  return () => {
    state = (state + 0x6d2b79f5) >>> 0
    let t = Math.imul(state ^ (state >>> 15), 1 | state)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32
  }
}
