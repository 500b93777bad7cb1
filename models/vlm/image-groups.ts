/** Requests about the same picture share its prefix; batches bound the tokens of one pass. */
import type { ImageSource } from '../model.ts'

interface Entry<T> {
  readonly item: T
  readonly index: number
}

/** Items about one picture; text-only items stand alone. */
export interface ImageGroup<T> {
  readonly image: ImageSource | null
  readonly entries: Entry<T>[]
}

/** In the order of first appearance. */
export function groupByImage<T extends { readonly image: ImageSource | null }>(items: readonly T[]): ImageGroup<T>[] {
  const groups = new Map<string, ImageGroup<T>>()
  items.forEach((item, index) => {
    const key = item.image?.key ?? `text ${index}`
    const group = groups.get(key)
    if (group) group.entries.push({ item, index })
    else groups.set(key, { image: item.image, entries: [{ item, index }] })
  })
  return [...groups.values()]
}

/** Cuts a list into runs of at most `limit` tokens after padding, at least one item each. */
export function batches<T>(items: readonly T[], tokens: (item: T) => number, limit: number): T[][] {
  const cut: T[][] = []
  let widest = 0
  for (const item of items) {
    const last = cut.at(-1)
    const width = Math.max(widest, tokens(item))
    if (last && width * (last.length + 1) <= limit) {
      last.push(item)
      widest = width
    } else {
      cut.push([item])
      widest = tokens(item)
    }
  }
  return cut
}
