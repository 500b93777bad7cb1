/** A run judged and assembled again from its log, under its own recipe or another; and the state that it was in. */
import { REPLAYED, type ReplayRecord, type StepReplay } from '../../actors/replay.ts'
import type { Tap } from '../../bus/nats/tap.ts'
import type { Config } from '../../configs/schema.ts'
import { readLog } from '../tap/records.ts'
import { openReplay } from './open-replay.ts'

export interface ReplayRunOptions {
  /** The configuration to judge by. */
  readonly config: Config
  /** Judge again only what this recipe has judged; null = everything. */
  readonly only: string | null
  /** The last record of the log that counts. */
  readonly to: number
  readonly signal: AbortSignal
  readonly onStep: (step: StepReplay) => void
  readonly onProblem: (seq: number, problem: string) => void
}

/** What the log says up to a sequence number. */
export interface PastState {
  readonly seq: number
  /** Committed version and its weights; null before version 0. */
  readonly version: number | null
  readonly adapter: string | null
  readonly steps: number
  readonly verdicts: number
  readonly dropped: number
  readonly dead: number
  readonly alarms: number
}

export interface ReplayResult {
  readonly state: PastState
  readonly steps: readonly StepReplay[]
}

/** Reads the log once, up to `to`. */
export async function replayRun(tap: Tap, options: ReplayRunOptions): Promise<ReplayResult> {
  const { config, only, to, signal, onStep, onProblem } = options
  const replay = await openReplay(config, only)
  const steps: StepReplay[] = []
  const counts = { verdict: 0, dropped: 0, dead: 0, alarm: 0 }
  let seq = 0
  let version: number | null = null
  let adapter: string | null = null
  for await (const record of readLog(tap, { to, signal, onProblem })) {
    seq = record.seq
    if (record.event in counts) counts[record.event as keyof typeof counts]++
    if (record.event === 'version') ({ weights: version, adapter } = record.message.data)
    if (!isReplayed(record)) continue
    const step = await replay.apply(record)
    if (step) onStep(step)
    if (step) steps.push(step)
  }
  const { verdict: verdicts, dropped, dead, alarm: alarms } = counts
  return { state: { seq, version, adapter, steps: steps.length, verdicts, dropped, dead, alarms }, steps }
}

export const isReplayed = (record: { readonly event: string }): record is ReplayRecord =>
  (REPLAYED as readonly string[]).includes(record.event)

export interface Comparison {
  readonly metric: string
  readonly was: number
  readonly now: number
}

const COMPARED = [
  'reasoner/reward',
  'reasoner/reward_std',
  'reasoner/frac_reward_zero_std',
  'filter/keep_rate',
  'reasoner/agreement',
  'questioner/reward',
  'questioner/reward_std',
  'questioner/frac_reward_zero_std',
] as const

/** Means over the steps of what the two ways of judging have in common. */
export function compare(steps: readonly StepReplay[]): Comparison[] {
  return COMPARED.flatMap((metric) => {
    const was = meanOf(steps.map((step) => step.was[metric]))
    const now = meanOf(steps.map((step) => step.now[metric]))
    return was === null || now === null ? [] : [{ metric, was, now }]
  })
}

function meanOf(values: readonly (number | null | undefined)[]): number | null {
  const known = values.filter((value) => typeof value === 'number')
  return known.length === 0 ? null : known.reduce((a, b) => a + b, 0) / known.length
}
