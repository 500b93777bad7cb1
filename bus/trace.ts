/** W3C trace context (https://www.w3.org/TR/trace-context/): one trace follows an image through all actors. */
import { randomUUID } from 'node:crypto'
import type { Traced } from './bus.ts'

/** 32 random hex digits. A UUID's fixed bits keep both halves from being zero, and Node draws its randomness in bulk. */
export const randomHex = (): string => randomUUID().replaceAll('-', '')

/** A `traceparent` that continues the trace of `parent`, or begins one; `hex` gives 32 digits, no half of them zero. */
export function traceparent(parent: Traced | undefined, hex: () => string): string {
  const trace = parent ? parent.traceparent.split('-')[1]! : hex()
  return `00-${trace}-${hex().slice(16)}-01`
}
