/** How sessions hold the frozen weights of a model: memory against time. */
import type { Recompute } from '../graph/autodiff.ts'
import type { Widening } from '../layers/parameters.ts'

/**
 * `packed`: float32 copies of the session's own, one in the order of each matrix product. `plain`: float32 once; a file of
 * float32 is mapped, 16-bit weights are widened when the session is made. `stored`: the pages of the file; a layer's
 * float32 copy exists while the layer is computed.
 */
export type Holding = 'packed' | 'plain' | 'stored'

/** What a session is for. */
export type SessionUse = 'generate' | 'vision' | 'train'

/** By the use of a session. */
export interface Holdings {
  /** Few rows at a time. */
  readonly generate: Holding
  readonly vision: Holding
  /** Scores and updates: many rows, forward and backward. */
  readonly train: Holding
  readonly recompute: Recompute
}

/** `auto` chooses by the size of the model. */
export type MemoryUse = 'auto' | 'fast' | 'lean'

/**
 * float32 bytes of all weights up to which `auto` is `fast`: SmolVLM-256M has 1.0e9, SmolVLM-500M 2.0e9, SmolVLM-2.2B 9.0e9.
 */
const FAST_BYTES = 4e9

/**
 * The one rule. Fast: sampling and pictures read packed weights, 4 bytes a weight; updates have enough rows to gain little
 * from packing, and would hold two packed copies. Lean: nothing of the size of the model but the pages of its files.
 *
 * @param parameters number of all weights.
 * @param recompute whether activations of layers are computed again in the backward pass; `auto`: where lean.
 */
export function holdingsFor(
  parameters: number,
  use: MemoryUse = 'auto',
  recompute: boolean | 'auto' = 'auto',
): Holdings {
  const lean = use === 'lean' || (use === 'auto' && 4 * parameters > FAST_BYTES)
  const again = recompute === 'auto' ? lean : recompute
  if (lean) return { generate: 'stored', vision: 'stored', train: 'stored', recompute: again ? 'all' : 'weights' }
  return { generate: 'packed', vision: 'packed', train: 'plain', recompute: again ? 'all' : 'nothing' }
}

export const wideningOf = (holding: Holding): Widening => (holding === 'stored' ? 'use' : 'once')

export const prepacks = (holding: Holding): boolean => holding === 'packed'
