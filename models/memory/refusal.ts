/** The memory that something needs beside the memory that there is. Pure. */
import { type MemoryEstimate, totalBytes } from './estimate.ts'

/** What would be needed under another setting. */
export interface Alternative {
  readonly set: string
  readonly estimate: MemoryEstimate
}

/** The model does not fit; nothing was allocated. The message is the arithmetic and what would help. */
export class MemoryError extends Error {
  override name = 'MemoryError'
}

/** Throws a MemoryError when the estimate is above what is free; `overrule` is the option that does without the check. */
export function checkFits(
  dir: string,
  estimate: MemoryEstimate,
  free: number,
  others: readonly Alternative[],
  overrule: string,
): void {
  if (totalBytes(estimate) <= free) return
  const needs = `${dir} ${describe(estimate)}, ${gigabytes(free)} GB are free`
  throw new MemoryError(`${needs}: ${advice(estimate, others)}; ${overrule} tries it all the same`)
}

/** `needs 14.2 GB (weights 6.1, optimizer 4.0, …)`. */
export function describe(estimate: MemoryEstimate): string {
  const parts = Object.entries(estimate).map(([name, bytes]: [string, number]) => `${name} ${gigabytes(bytes)}`)
  return `needs ${gigabytes(totalBytes(estimate))} GB (${parts.join(', ')})`
}

/** Settings that save something, the best first, with what they save. */
function advice(estimate: MemoryEstimate, others: readonly Alternative[]): string {
  const total = totalBytes(estimate)
  const helpful = others
    .map(({ set, estimate: other }) => ({ set, saved: total - totalBytes(other) }))
    .filter(({ saved }) => saved >= 0.02 * total)
    .toSorted((a, b) => b.saved - a.saved)
    .map(({ set, saved }) => `--set ${set} (−${gigabytes(saved)} GB)`)
  return helpful.length === 0
    ? 'use a smaller model or a machine with more memory'
    : `use ${helpful.join(', ')}, or a smaller model`
}

export const gigabytes = (bytes: number): string => (bytes / 1e9).toFixed(bytes < 1e10 ? 2 : 1)
