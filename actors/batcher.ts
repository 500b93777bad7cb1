/** Which waiting requests share the next forward pass. Pure, and independent of the order in which they arrived. */
import type { RequestKind } from './ports.ts'

/** A request as far as batching cares. */
export interface Waiting {
  /** Names the delivery; two deliveries of one request have the same `id`. */
  readonly key: string
  readonly id: string
  readonly kind: RequestKind
  /** Oldest version that may serve it. */
  readonly minWeights: number
  /** The only version that may serve it; null = the newest. */
  readonly weights: number | null
  /** `size`: prompts of the whole cohort. */
  readonly cohort: { readonly id: string; readonly size: number } | null
  readonly prompts: number
  /** Completions it asks for. */
  readonly rows: number
}

export interface Batch {
  readonly kind: RequestKind
  /** Version to serve it under; null = the newest. */
  readonly weights: number | null
  /** Deliveries, sorted by id of the request. */
  readonly keys: readonly string[]
}

export interface BatchLimits {
  /** Waiting completions that are served without waiting for the rest of their cohort. */
  readonly maxRows: number
}

/**
 * The next batch, or null when it is better to wait. Gradients go first, one at a time: a step waits for them. Then
 * cohorts that are complete or over the size cap, those for the newest weights before pinned ones. `idle`: nothing has
 * arrived for a while, so what is there is served, complete or not.
 */
export function nextBatch(
  waiting: Iterable<Waiting>,
  head: number | null,
  idle: boolean,
  { maxRows }: BatchLimits,
): Batch | null {
  const groups = new Map<string, Waiting[]>()
  for (const request of waiting) {
    if (!servable(request, head)) continue
    const name = groupName(request)
    const group = groups.get(name)
    if (group) group.push(request)
    else groups.set(name, [request])
  }
  const candidates = [...groups.values()].filter((group) => idle || isFull(group, maxRows))
  const first = candidates.toSorted((a, b) => compareGroups(a[0]!, b[0]!))[0]
  if (!first) return null
  const { kind, weights } = first[0]!
  const merged =
    idle && kind === 'model.generate' ? candidates.filter((g) => sameForward(g[0]!, first[0]!)).flat() : first
  return { kind, weights, keys: merged.toSorted(compareRequests).map((request) => request.key) }
}

const PRIORITY: Readonly<Record<RequestKind, number>> = {
  'model.gradient': 0,
  'model.generate': 1,
  'model.logprobs': 2,
}

function servable(request: Waiting, head: number | null): boolean {
  return head !== null && request.minWeights <= head && (request.weights ?? 0) <= head
}

/** Requests of one name are served together. */
function groupName({ kind, weights, cohort, id }: Waiting): string {
  const alone = kind === 'model.gradient' ? id : ''
  return [kind, weights ?? 'newest', cohort?.id ?? '', alone].join(' ')
}

function isFull(group: readonly Waiting[], maxRows: number): boolean {
  const { kind, cohort } = group[0]!
  if (kind === 'model.gradient') return true
  const prompts = new Map(group.map((request) => [request.id, request.prompts]))
  const arrived = [...prompts.values()].reduce((sum, count) => sum + count, 0)
  // Members that disagree about the size (a foreign asker's mistake) are held to the largest: whoever came first must not matter.
  if (cohort && arrived >= Math.max(...group.map((request) => request.cohort!.size))) return true
  return group.reduce((sum, request) => sum + request.rows, 0) >= maxRows
}

const sameForward = (a: Waiting, b: Waiting): boolean => a.kind === b.kind && a.weights === b.weights

/** Newest weights first, then older pins first, then by cohort. */
function compareGroups(a: Waiting, b: Waiting): number {
  return (
    PRIORITY[a.kind] - PRIORITY[b.kind] ||
    (a.weights ?? -1) - (b.weights ?? -1) ||
    compareIds(a.cohort?.id ?? '', b.cohort?.id ?? '') ||
    compareIds(a.id, b.id)
  )
}

const compareRequests = (a: Waiting, b: Waiting): number => compareIds(a.id, b.id) || compareIds(a.key, b.key)

/** By code unit, not by locale: the same on every machine. */
export const compareIds = (a: string, b: string): number => (a < b ? -1 : a > b ? 1 : 0)
