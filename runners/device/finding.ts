/** What a check of a device found. */
import { type Placement, placementOf } from '../../models/runtime/placement.ts'
import type { PlacedNode } from '../../models/runtime/profile.ts'
import type { Device } from '../../models/runtime/session.ts'

export interface DeviceResult {
  readonly check: string
  /** `warn`: right, but a part is computed on the CPU. */
  readonly status: 'ok' | 'warn' | 'fail'
  readonly detail: string
  /** Largest difference to the CPU. */
  readonly maxError?: number | undefined
  readonly placement?: Placement | undefined
}

/** A check by itself or several that share their work; `name` stands for them when the process dies. */
export interface DeviceCheck {
  readonly name: string
  run(device: Device): AsyncGenerator<DeviceResult>
}

const counted = (counts: Readonly<Record<string, number>>): string =>
  Object.entries(counts)
    .map(([op, n]) => `${n} ${op}`)
    .join(', ')

/** For a result: what is no number cannot be sent. */
export const errorOf = (maxError: number): { maxError?: number } => (Number.isFinite(maxError) ? { maxError } : {})

/** Where the nodes of a graph ran, in one line. */
export function placed(check: string, nodes: readonly PlacedNode[], device: Device): DeviceResult {
  const placement = placementOf(nodes, device)
  const { fallbacks, copies, sizes } = placement
  const total = (counts: Readonly<Record<string, number>>) => Object.values(counts).reduce((a, b) => a + b, 0)
  const moved = total(fallbacks) + total(copies)
  const parts = [
    `${placement.device} nodes on the ${device}`,
    total(fallbacks) === 0 ? 'none falls back' : `on the CPU instead: ${counted(fallbacks)}`,
    ...(total(copies) === 0 ? [] : [`copies: ${counted(copies)}`]),
    ...(total(sizes) === 0 ? [] : [`${total(sizes)} for sizes on the CPU`]),
  ]
  return { check, status: moved === 0 ? 'ok' : 'warn', detail: parts.join('; '), placement }
}

/** Largest |a − b| / (1 + |b|); Infinity where one is not a number and the other is. */
export function largestError(actual: ArrayLike<number | bigint>, expected: ArrayLike<number | bigint>): number {
  if (actual.length !== expected.length) return Infinity
  let largest = 0
  for (let i = 0; i < actual.length; i++) {
    const [a, b] = [Number(actual[i]), Number(expected[i])]
    const error = Object.is(a, b) ? 0 : Math.abs(a - b) / (1 + Math.abs(b))
    largest = Math.max(largest, Number.isNaN(error) ? Infinity : error)
  }
  return largest
}
