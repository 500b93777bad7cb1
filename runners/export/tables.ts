/** A run as tables for pandas or DuckDB: their columns, and the rows that records of the log give. */
import { StepBook, type StepBatch } from '../../actors/step-book.ts'
import type { Completion, EventData, Question } from '../../bus/messages.ts'
import type { AnyRecord } from '../tap/records.ts'

type ColumnType = 'STRING' | 'JSON' | 'INT32' | 'INT64' | 'DOUBLE' | 'BOOLEAN' | 'TIMESTAMP'
export type Row = Readonly<Record<string, string | number | bigint | boolean | Date | null>>

/** Column types of every table. */
export const TABLES = {
  /** Everything, one row per record; `data` is JSON. */
  records: {
    seq: 'INT64',
    event: 'STRING',
    id: 'STRING',
    at: 'TIMESTAMP',
    by: 'STRING',
    trace: 'STRING',
    data: 'JSON',
  },
  /** One row per sample of either role, with what it was rewarded. `logprob` is the sum over its tokens. */
  completions: {
    step: 'INT32',
    role: 'STRING',
    group: 'STRING',
    sample: 'INT32',
    weights: 'INT32',
    image: 'STRING',
    name: 'STRING',
    question: 'STRING',
    silver: 'STRING',
    type: 'STRING',
    malformed: 'STRING',
    text: 'STRING',
    answer: 'STRING',
    tokens: 'INT32',
    logprob: 'DOUBLE',
    finished: 'BOOLEAN',
    reward: 'DOUBLE',
    keep: 'BOOLEAN',
    recipe: 'STRING',
  },
  /** Figures of the steps, one row each. */
  metrics: { step: 'INT32', at: 'TIMESTAMP', name: 'STRING', value: 'DOUBLE' },
  evals: {
    weights: 'INT32',
    at: 'TIMESTAMP',
    set: 'STRING',
    type: 'STRING',
    probe: 'BOOLEAN',
    n: 'INT32',
    mean1: 'DOUBLE',
    greedy: 'DOUBLE',
    maj: 'DOUBLE',
  },
} as const satisfies Readonly<Record<string, Readonly<Record<string, ColumnType>>>>
export type TableName = keyof typeof TABLES

type Emit = (table: TableName, row: Row) => void

/** Rows in the order of the log; those of `completions` when their step is committed, the rest at the end. */
export class Tables {
  readonly #book: StepBook
  readonly #open = new Set<number>()

  constructor(
    images: number,
    private readonly emit: Emit,
  ) {
    this.#book = new StepBook(images)
  }

  take(record: AnyRecord): void {
    this.emit('records', recordRow(record))
    const at = new Date(record.message.at)
    switch (record.event) {
      case 'questions':
        this.#open.add(record.message.data.step)
        this.#book.apply(record)
        break
      case 'answers':
      case 'verdict':
      case 'dead':
      case 'retried':
        this.#book.apply(record)
        break
      case 'step': {
        const { step, metrics } = record.message.data
        for (const [name, value] of Object.entries(metrics)) this.emit('metrics', { step, at, name, value })
        this.#close(step)
        break
      }
      case 'eval': {
        const { weights, set, probe, byType, n, mean1, greedy, maj } = record.message.data
        const scores = Object.entries({ ...byType, all: { n, mean1, greedy, maj } })
        for (const [type, score] of scores) this.emit('evals', { weights, at, set, type, probe, ...score })
        break
      }
      case 'image':
      case 'version':
      case 'dropped':
      case 'alarm':
      case 'remark':
      case 'generated':
      case 'logprobs':
      case 'gradient':
        break
    }
  }

  /** What belongs to steps that the run has not committed. */
  end(): void {
    for (const step of [...this.#open].toSorted((a, b) => a - b)) this.#close(step)
  }

  #close(step: number): void {
    this.#open.delete(step)
    for (const row of completionRows(this.#book.batch(step))) this.emit('completions', row)
    this.#book.forgetBefore(step + 1)
  }
}

function recordRow({ seq, event, id, message }: AnyRecord): Row {
  const { at, by, traceparent, data } = message
  return {
    seq: BigInt(seq),
    event,
    id,
    at: new Date(at),
    by,
    trace: traceparent.split('-')[1]!,
    data: JSON.stringify(data),
  }
}

function* completionRows(batch: StepBatch): Generator<Row> {
  for (const image of [...batch.images.values()].toSorted((a, b) => a.index - b.index)) {
    for (const [q, question] of image.questions.entries()) {
      const verdict = batch.verdicts.get(question.group)
      const common = {
        step: batch.step,
        group: question.group,
        image: image.image,
        name: image.name,
        ...about(question),
        recipe: verdict?.recipe ?? null,
      }
      yield {
        ...common,
        role: 'questioner',
        sample: q,
        weights: image.weights,
        ...said(question.completion),
        answer: null,
        reward: verdict?.questioner.reward ?? null,
        keep: null,
      }
      const answers = batch.answers.get(question.group)
      if (answers) yield* answerRows(common, answers, verdict)
    }
  }
}

function* answerRows(
  common: Row,
  { completions, parsed, weights }: EventData<'answers'>,
  verdict: EventData<'verdict'> | undefined,
): Generator<Row> {
  for (const [g, completion] of completions.entries()) {
    yield {
      ...common,
      role: 'reasoner',
      sample: g,
      weights,
      ...said(completion),
      answer: parsed[g] ?? null,
      reward: verdict?.reasoner?.rewards[g] ?? null,
      keep: verdict?.reasoner?.keep ?? null,
    }
  }
}

const about = ({ question, silver, type, malformed }: Question) => ({ question, silver, type, malformed })

const said = ({ text, tokens, logprobs, finished }: Completion) => ({
  text,
  tokens: tokens.length,
  logprob: logprobs.reduce((sum, logprob) => sum + logprob, 0),
  finished,
})
