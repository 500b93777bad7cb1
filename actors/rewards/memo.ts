/** Steps whose questions may be judged at the same time: the head and a few that lag behind. */
const REMEMBERED = 4

/**
 * Remembers a value per list of texts, for the last few lists: every group of a step asks for the same statistics over
 * the step's questions. Lists are compared by content, in order.
 */
export function memoizeByList<T>(compute: (texts: readonly string[]) => T): (texts: readonly string[]) => T {
  const entries: { readonly texts: readonly string[]; readonly value: T }[] = []
  return (texts) => {
    const found = entries.find((entry) => sameList(entry.texts, texts))
    if (found) return found.value
    const entry = { texts: [...texts], value: compute(texts) }
    entries.unshift(entry)
    entries.length = Math.min(entries.length, REMEMBERED)
    return entry.value
  }
}

function sameList(a: readonly string[], b: readonly string[]): boolean {
  return a.length === b.length && a.every((text, i) => text === b[i])
}
