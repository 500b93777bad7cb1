/** One row of the suite: a fault, what must hold under it, and what was seen. */
import type { Invariant } from '../../actors/audit.ts'
import type { Demand } from '../simulation/simulation.ts'
import type { Lab } from './lab.ts'

/** What did not hold. Beside the invariants of a log: `progress`, the run stands still; `same-weights`, it ends at others. */
export interface Failure {
  readonly invariant: Invariant | Demand | 'progress' | 'same-weights' | 'visible' | 'bounded' | 'unharmed'
  readonly message: string
}

export interface Fault {
  readonly row: string
  readonly name: string
  /** Why this machine cannot show it; null when it can. */
  readonly missing?: () => Promise<string | null>
  /** Makes it happen, and proves in the laboratory what must hold. */
  run(lab: Lab): Promise<void>
}

export interface Result {
  readonly row: string
  readonly name: string
  readonly passed: boolean
  /** Why it was left out; null when it ran. */
  readonly skipped: string | null
  readonly failures: readonly Failure[]
  /** Times from a fault to the next progress of the run. */
  readonly recovery: { readonly count: number; readonly median: number; readonly max: number } | null
  readonly figures: Readonly<Record<string, number | string>>
  readonly seconds: number
}
