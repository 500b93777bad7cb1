/**
 * Judges the steps of a run again from its log alone, and makes their updates again. What the log decides must come out
 * the same to the bit: verdicts by the recorded recipe, and the micro-batches (by sha256) that the run computed.
 */
import { isDeepStrictEqual } from 'node:util'
import { blobName } from '../bus/blob-name.ts'
import type { LogRecord } from '../bus/bus.ts'
import type { EventData } from '../bus/messages.ts'
import { assemble, type AssembleOptions, type Part } from './assemble.ts'
import { gradientId } from './ids.ts'
import { encodeMicroBatch } from './micro-batch.ts'
import { verdictOf } from './judge.ts'
import type { Judge } from './rewards/recipe.ts'
import type { Similarity } from './rewards/similarity.ts'
import { stepMetrics, type StepMetrics } from './rewards/step-metrics.ts'
import { StepBook, wellFormedQuestions, type BookRecord, type StepBatch } from './step-book.ts'

type ReplayEvent = Exclude<BookRecord['event'], 'version'> | 'gradient' | 'step'
export type ReplayRecord = { [E in ReplayEvent]: LogRecord<E> }[ReplayEvent]
export const REPLAYED: readonly ReplayEvent[] = [
  'questions',
  'answers',
  'verdict',
  'dead',
  'retried',
  'gradient',
  'step',
]

export interface ReplayOptions {
  /** The recipe, bound to its knobs. */
  readonly recipe: Judge
  /** Judge again only what this recipe has judged in the run; null = everything. */
  readonly only: string | null
  readonly similarity: Similarity
  /** Images of a step, assumed until the log says it. */
  readonly images: number
  readonly assemble: AssembleOptions
}

export interface StepReplay {
  readonly step: number
  readonly verdicts: number
  /** Verdicts of other recipes than `only`: taken as they are. */
  readonly others: number
  /** Verdicts that came out the same; with `only` null, those with the same rewards. */
  readonly same: number
  /** First groups that did not. */
  readonly differing: readonly string[]
  /** Of the micro-batches that follow from the recorded verdicts; `true` where the run computed exactly these. */
  readonly hash: string
  readonly sameUpdate: boolean
  readonly was: StepMetrics
  readonly now: StepMetrics
  /** Completions that both ways train, and those whose advantage has the same sign in both. */
  readonly trained: { readonly both: number; readonly sameSign: number }
}

export class Replay {
  readonly #options: ReplayOptions
  readonly #book: StepBook
  /** Gradients that the run computed, or gave up, by step. */
  readonly #computed = new Map<number, Set<string>>()
  readonly #givenUp = new Set<string>()

  constructor(options: ReplayOptions) {
    this.#options = options
    this.#book = new StepBook(options.images)
  }

  /** Takes the records of the log in order; a `step` event, which comes last of its step, gives the replay of that step. */
  async apply(record: ReplayRecord): Promise<StepReplay | null> {
    switch (record.event) {
      case 'gradient': {
        const { step } = record.message.data
        this.#computed.set(step, (this.#computed.get(step) ?? new Set()).add(record.id))
        return null
      }
      case 'step': {
        const { step } = record.message.data
        const replayed = await this.#step(this.#book.batch(step))
        this.#book.forgetBefore(step + 1)
        this.#computed.delete(step)
        return replayed
      }
      case 'dead':
        this.#givenUp.add(record.message.data.id)
        this.#book.apply(record)
        return null
      case 'questions':
      case 'answers':
      case 'verdict':
      case 'retried':
        this.#book.apply(record)
        return null
    }
  }

  async #step(batch: StepBatch): Promise<StepReplay> {
    const { only } = this.#options
    const recorded = [...batch.verdicts.values()]
    const again = recorded.filter((verdict) => only === null || verdict.recipe === only)
    const verdicts = new Map(batch.verdicts)
    const asked = wellFormedQuestions(batch)
    for (const verdict of again) verdicts.set(verdict.group, await this.#judge(batch, verdict, asked))
    const compared = only === null ? rewardsOf : (verdict: EventData<'verdict'>) => verdict
    const differing = again.filter((old) => !isDeepStrictEqual(compared(verdicts.get(old.group)!), compared(old)))
    const was = this.#parts(batch)
    const { step, expects, images, questions, wellFormed, answers, dead } = batch
    const now = this.#parts({ step, expects, images, questions, wellFormed, answers, dead, verdicts })
    const ids = was.map((part, index) => gradientId(step, index, blobName(encodeMicroBatch(part.batch))))
    const computed = this.#computed.get(step) ?? new Set()
    return {
      step,
      verdicts: recorded.length,
      others: recorded.length - again.length,
      same: again.length - differing.length,
      differing: differing.slice(0, 3).map(({ group }) => group),
      hash: blobName(new TextEncoder().encode(ids.join(' '))).slice('sha256-'.length, 'sha256-'.length + 16),
      sameUpdate: ids.every((id) => computed.has(id) || this.#givenUp.has(id)),
      was: metricsOf(batch, [...batch.verdicts.values()]),
      now: metricsOf(batch, [...verdicts.values()]),
      trained: compareSigns(was, now),
    }
  }

  async #judge(
    batch: StepBatch,
    recorded: EventData<'verdict'>,
    others: readonly string[],
  ): Promise<EventData<'verdict'>> {
    const { question, silver, malformed } = batch.questions.get(recorded.group)!
    const answers = batch.answers.get(recorded.group)?.parsed ?? []
    const verdict = await verdictOf(this.#options, recorded, { question, silver, malformed, answers, others })
    // As it would be read from the log.
    return JSON.parse(JSON.stringify(verdict)) as EventData<'verdict'>
  }

  #parts(batch: StepBatch): readonly Part[] {
    return assemble(batch, batch.step - 1, this.#options.assemble).parts
  }
}

const rewardsOf = ({ questioner, reasoner }: EventData<'verdict'>) => [
  questioner.reward,
  reasoner && [reasoner.keep, ...reasoner.rewards],
]

const metricsOf = (batch: StepBatch, verdicts: readonly EventData<'verdict'>[]): StepMetrics =>
  stepMetrics({
    questions: [...batch.images.values()],
    answers: [...batch.answers.values()],
    verdicts,
    typesAtStart: null,
  })

/** Advantages of all completions that are trained, by group and tokens. */
function advantagesOf(parts: readonly Part[]): Map<string, { advantage: number; count: number }> {
  const rows = parts.flatMap(({ groups, batch }) =>
    batch.groups.flatMap(({ completions }, g) =>
      completions.map(({ tokens, advantage, count }) => {
        return [`${groups[g]} ${tokens.join(' ')}`, { advantage, count: count ?? 1 }] as const
      }),
    ),
  )
  return new Map(rows)
}

function compareSigns(was: readonly Part[], now: readonly Part[]): StepReplay['trained'] {
  const before = advantagesOf(was)
  const pairs = [...advantagesOf(now)].flatMap(([key, { advantage, count }]) => {
    const old = before.get(key)
    return old ? [{ count, same: Math.sign(old.advantage) === Math.sign(advantage) }] : []
  })
  const sum = (list: typeof pairs) => list.reduce((total, { count }) => total + count, 0)
  return { both: sum(pairs), sameSign: sum(pairs.filter(({ same }) => same)) }
}
