/** W3C trace context (https://www.w3.org/TR/trace-context/): one trace follows an image through all actors. */
import { randomUUID } from 'node:crypto'
import type { Traced } from './bus.ts'

/** 32 random hex digits. A UUID's fixed bits keep both halves from being zero, and Node draws its randomness in bulk. */
const hex = () => randomUUID().replaceAll('-', '')

/** A `traceparent` that continues the trace of `parent`, or begins one. */
export function traceparent(parent?: Traced): string {
  const trace = parent ? parent.traceparent.split('-')[1]! : hex()
  return `00-${trace}-${hex().slice(16)}-01`
}
