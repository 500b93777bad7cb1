/**
 * Alarms for the ways in which self-evolution collapses while its own rewards look well. Every rule reads the history
 * of a run's step metrics (label-free) and of its held-out probe (`eval/*`, labelled).
 */
import { z } from 'zod'

export const alarmConfigSchema = z.strictObject({
  window: z
    .number()
    .int()
    .min(1)
    .default(5)
    .describe('Steps that are averaged: the first ones are the start, the last ones the present'),
  probeFall: z
    .number()
    .positive()
    .default(0.05)
    .describe('Fall of the held-out probe (mean1 or greedy) below its best that counts as a fall'),
  agreementHigh: z
    .number()
    .min(0)
    .max(1)
    .default(0.95)
    .describe('Share of answers equal to the silver answer above which fewer kinds of questions mean collusion'),
  agreementRise: z
    .number()
    .min(0)
    .default(0.05)
    .describe(
      'Rise of the same share above which a fall of the held-out probe means collusion, not wrong silver answers',
    ),
  majorityHigh: z.number().min(0).max(1).default(0.92).describe('Majority share above which votes may be locked in'),
  keptPart: z
    .number()
    .min(0)
    .max(1)
    .default(0.5)
    .describe('They are locked in when the kept groups have also fallen below this part of their start'),
  keptLow: z.number().min(0).max(1).default(0.1).describe('Share of kept groups below which too little is learnt'),
  noneDrift: z
    .number()
    .positive()
    .default(0.07)
    .describe('Change of the share of "none"-like answers against the start, up or down'),
  partOfStart: z
    .number()
    .min(0)
    .max(1)
    .default(0.8)
    .describe('Type entropy, distinct questions and well-formed questions may fall to this part of their start'),
  gradientRatio: z
    .number()
    .min(1)
    .default(10)
    .describe("A gradient norm above this multiple of the run's median explodes"),
  clearAfter: z
    .number()
    .int()
    .min(1)
    .default(5)
    .describe('Steps without its condition after which an alarm is over and may be raised again'),
})
type AlarmConfig = z.output<typeof alarmConfigSchema>

/** As the `alarm` event has it. */
export interface Alarm {
  readonly step: number
  readonly name: AlarmName
  readonly message: string
  readonly value: number
}

/** Metrics of a step; a probe that was not run is absent or null. */
export type AlarmMetrics = Readonly<Record<string, number | null>>

interface Finding {
  readonly value: number
  readonly message: string
}

/** The values of each metric so far, nulls left out. */
class History {
  readonly #series = new Map<string, number[]>()
  /** Metrics of the last step as they came. */
  last: AlarmMetrics = {}

  constructor(private readonly window: number) {}

  add(metrics: AlarmMetrics): void {
    this.last = metrics
    for (const [name, value] of Object.entries(metrics)) {
      if (value === null || !Number.isFinite(value)) continue
      const series = this.#series.get(name)
      if (series) series.push(value)
      else this.#series.set(name, [value])
    }
  }

  all(name: string): readonly number[] {
    return this.#series.get(name) ?? []
  }

  /** Mean of the first values; null before there are any. */
  start(name: string): number | null {
    return mean(this.all(name).slice(0, this.window))
  }

  /** Mean of the last values; null before the window is full. */
  now(name: string): number | null {
    const series = this.all(name)
    return series.length < this.window ? null : mean(series.slice(-this.window))
  }
}

type Rule = (history: History, config: AlarmConfig) => Finding | null

const rules = {
  /**
   * Both roles agree on nonsense: they agree more and more while the probe falls. Without a probe only an agreement that
   * is nearly total, on ever fewer kinds of questions, gives it away.
   */
  collusion(history, config) {
    const start = history.start('reasoner/agreement')
    const now = history.now('reasoner/agreement')
    if (start === null || now === null) return null
    const worse =
      (now > start + config.agreementRise ? worstProbeFall(history, config) : null) ??
      (now > config.agreementHigh ? fallen(history, 'questioner/type_entropy', config) : null)
    if (worse === null) return null
    return {
      value: now,
      message: `${percent(now)} of the answers equal the silver answer (${percent(start)} at the start) while ${worse.message}: the roles agree on nonsense`,
    }
  },

  /** The Questioner is paid for silver answers that are wrong, because nobody agrees with those. */
  'difficult-becomes-wrong'(history, config) {
    const start = history.start('reasoner/agreement')
    const now = history.now('reasoner/agreement')
    const fall = worstProbeFall(history, config)
    if (start === null || now === null || fall === null || now > start + config.agreementRise) return null
    return {
      value: now,
      message: `answers agree with silver answers no more than at the start (${percent(start)} → ${percent(now)}) while ${fall.message}: wrong silver answers pass for difficult ones`,
    }
  },

  /** Votes become unanimous, so that ever less is left to learn from. */
  'majority-lock-in'(history, config) {
    const share = history.now('reasoner/majority_share')
    const start = history.start('filter/keep_rate')
    const kept = history.now('filter/keep_rate')
    if (share === null || start === null || kept === null) return null
    if (share <= config.majorityHigh || kept >= config.keptPart * start) return null
    return {
      value: share,
      message: `the majority has ${percent(share)} of the votes and the kept groups fell from ${percent(start)} to ${percent(kept)}`,
    }
  },

  'few-kept-groups'(history, config) {
    const kept = history.now('filter/keep_rate')
    if (kept === null || kept >= config.keptLow) return null
    return { value: kept, message: `only ${percent(kept)} of the groups are trained` }
  },

  /** Answers of "none" spread, or are unlearned, by reward alone. */
  'none-drift'(history, config) {
    const start = history.start('reasoner/none_rate')
    const now = history.now('reasoner/none_rate')
    if (start === null || now === null || Math.abs(now - start) < config.noneDrift) return null
    return { value: now, message: `"none"-like answers went from ${percent(start)} to ${percent(now)}` }
  },

  'held-out-fall': (history, config) => worstProbeFall(history, config),
  'type-entropy-fall': (history, config) => fallen(history, 'questioner/type_entropy', config),
  'distinct-fall': (history, config) => fallen(history, 'questioner/distinct', config),
  'format-collapse': (history, config) => fallen(history, 'questioner/valid_rate', config),

  /** JSON has no NaN: a norm that is not finite arrives as null, and the alarm's value is then 0. */
  gradient(history, config) {
    const norm = history.last.grad_norm
    if (norm === undefined) return null
    if (norm === null || !Number.isFinite(norm))
      return { value: 0, message: 'the gradient norm is not a finite number' }
    const typical = median(history.all('grad_norm').slice(0, -1))
    if (typical === null || history.all('grad_norm').length <= config.window) return null
    if (norm <= config.gradientRatio * typical) return null
    return {
      value: norm,
      message: `the gradient norm ${norm.toPrecision(3)} is ${Math.round(norm / typical)} times the run's median`,
    }
  },
} as const satisfies Readonly<Record<string, Rule>>

export type AlarmName = keyof typeof rules

const alarmNames = Object.keys(rules) as readonly AlarmName[]

/** Whether an alarm is about the learning; others are about messages, tasks or machines. */
export const isCollapse = (name: string): name is AlarmName => name in rules

export interface Alarms {
  /**
   * Takes in the metrics of a step and returns the alarms that it raises. An alarm is raised once, and again only after
   * its condition was gone for `clearAfter` steps. To resume, observe the logged steps again.
   */
  observe(step: number, metrics: AlarmMetrics): Alarm[]
}

/** Alarms of one run; throws a ZodError for a wrong threshold. */
export function createAlarms(rawConfig: unknown = {}): Alarms {
  const config = alarmConfigSchema.parse(rawConfig)
  const history = new History(config.window)
  /** Steps since the condition of a raised alarm was last met. */
  const quiet = new Map<AlarmName, number>()
  return {
    observe(step, metrics) {
      history.add(metrics)
      return alarmNames.flatMap((name) => {
        const finding = rules[name](history, config)
        const since = quiet.get(name)
        if (finding) quiet.set(name, 0)
        else if (since !== undefined && since + 1 >= config.clearAfter) quiet.delete(name)
        else if (since !== undefined) quiet.set(name, since + 1)
        return finding && since === undefined ? [{ step, name, ...finding }] : []
      })
    },
  }
}

/** The deeper fall of the probe's two figures below their best, where it is deep enough. */
function worstProbeFall(history: History, config: AlarmConfig): Finding | null {
  const falls = ['eval/mean1', 'eval/greedy'].flatMap((name) => {
    const series = history.all(name)
    const value = series.at(-1)
    if (value === undefined) return []
    const best = series.reduce((a, b) => Math.max(a, b))
    return [
      {
        depth: best - value,
        value,
        message: `held-out ${name.slice(5)} fell from ${percent(best)} to ${percent(value)}`,
      },
    ]
  })
  const [worst] = falls.sort((a, b) => b.depth - a.depth)
  return worst && worst.depth >= config.probeFall ? { value: worst.value, message: worst.message } : null
}

/** A metric that is now below the permitted part of its start. */
function fallen(history: History, name: string, config: AlarmConfig): Finding | null {
  const start = history.start(name)
  const now = history.now(name)
  if (start === null || now === null || now >= config.partOfStart * start) return null
  return { value: now, message: `${name} fell from ${start.toFixed(3)} to ${now.toFixed(3)}` }
}

function percent(share: number): string {
  return `${(100 * share).toFixed(1)} %`
}

function mean(values: readonly number[]): number | null {
  return values.length === 0 ? null : values.reduce((a, b) => a + b, 0) / values.length
}

function median(values: readonly number[]): number | null {
  const sorted = [...values].sort((a, b) => a - b)
  return sorted[Math.floor(sorted.length / 2)] ?? null
}
