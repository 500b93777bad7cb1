/** What the log says about the steps under way, gathered by step: the Judge's and the Optimizer's view of a batch. */
import type { LogRecord } from '../bus/bus.ts'
import type { EventData, Question } from '../bus/messages.ts'
import { holdsGroup, imagesOf, isGroup, stepOf } from './ids.ts'

/** Events that a book understands; whoever keeps one follows those it needs. */
type BookEvent = 'questions' | 'answers' | 'verdict' | 'dead' | 'retried' | 'version'
export type BookRecord = { [K in BookEvent]: LogRecord<K> }[BookEvent]

export interface StepBatch {
  readonly step: number
  /** Image tasks of the step. */
  readonly expects: number
  /** By index of the image in the step. */
  readonly images: ReadonlyMap<number, EventData<'questions'>>
  /** By group, malformed ones too. */
  readonly questions: ReadonlyMap<string, Question>
  /** Questions that are not malformed. */
  readonly wellFormed: number
  readonly answers: ReadonlyMap<string, EventData<'answers'>>
  readonly verdicts: ReadonlyMap<string, EventData<'verdict'>>
  /** Image tasks and groups that were given up, and why. */
  readonly dead: ReadonlyMap<string, string>
}

/** Well-formed questions of a step, in canonical order. */
export const wellFormedQuestions = ({ images }: StepBatch): string[] =>
  [...images.values()]
    .toSorted((a, b) => a.index - b.index)
    .flatMap((image) => image.questions.filter((q) => q.malformed === null).map((q) => q.question))

/** `asked`: all questions of the step are known. `judged`: each of them has its verdict or is dead. */
type Milestone = 'asked' | 'judged'

interface Waiter {
  readonly milestone: Milestone
  resolve(batch: StepBatch | null): void
  reject(error: unknown): void
}

class OpenStep implements StepBatch {
  readonly step: number
  expects: number
  readonly images = new Map<number, EventData<'questions'>>()
  readonly answers = new Map<string, EventData<'answers'>>()
  readonly verdicts = new Map<string, EventData<'verdict'>>()
  readonly dead = new Map<string, string>()
  readonly settled = new Set<string>()
  readonly questions = new Map<string, Question>()
  wellFormed = 0
  deadImages = 0
  readonly waiting: Waiter[] = []

  constructor(step: number, expects: number) {
    this.step = step
    this.expects = expects
  }

  ask(data: EventData<'questions'>): void {
    this.expects = data.expects
    this.images.set(data.index, data)
    for (const question of data.questions) {
      this.questions.set(question.group, question)
      if (question.malformed === null) this.wellFormed++
    }
  }

  reached(milestone: Milestone): boolean {
    const asked = this.images.size + this.deadImages >= this.expects
    return asked && (milestone === 'asked' || this.settled.size >= this.questions.size)
  }
}

/** Images or groups that a task is about. One of several that was given up whole could not even be read. */
function itemsOf({ questions }: OpenStep, kind: string, id: string): readonly string[] {
  if (kind === 'questioner.images') return imagesOf(id)
  if (kind !== 'reasoner.questions' && kind !== 'judge.groups') return []
  if (isGroup(id)) return [id]
  const malformed = id.endsWith('-malformed')
  return [...questions.values()]
    .filter((question) => holdsGroup(id, question.group) && (question.malformed !== null) === malformed)
    .map(({ group }) => group)
}

export class StepBook {
  readonly #steps = new Map<number, OpenStep>()
  readonly #expects: number
  #oldest = 0

  /** `expects` image tasks per step are assumed until the first of them says how many there are. */
  constructor(expects: number) {
    this.#expects = expects
  }

  apply(record: BookRecord): void {
    if (record.event === 'version') {
      this.forgetBefore(record.message.data.weights + 1)
      return
    }
    const step = 'step' in record.message.data ? record.message.data.step : stepOf(record.message.data.id)
    if (step === null || step < this.#oldest) return
    const open = this.#open(step)
    switch (record.event) {
      case 'questions':
        open.ask(record.message.data)
        break
      case 'answers':
        open.answers.set(record.id, record.message.data)
        return
      case 'verdict':
        open.verdicts.set(record.id, record.message.data)
        open.settled.add(record.id)
        break
      case 'dead':
        this.#bury(open, record.message.data)
        break
      case 'retried':
        this.#exhume(open, record.message.data)
        return
    }
    this.#announce(open)
  }

  /** A batch as far as it is known. */
  batch(step: number): StepBatch {
    return this.#open(step)
  }

  /**
   * Resolves when a step has reached a milestone; with null when it is past, because then nobody waits for this work any
   * more. Rejects when the signal aborts.
   */
  when(step: number, milestone: Milestone, signal: AbortSignal): Promise<StepBatch | null> {
    if (step < this.#oldest) return Promise.resolve(null)
    const open = this.#open(step)
    if (open.reached(milestone)) return Promise.resolve(open)
    return new Promise((resolve, reject) => {
      const done = () => signal.removeEventListener('abort', abort)
      const waiter: Waiter = {
        milestone,
        resolve: (batch) => (done(), resolve(batch)),
        reject: (error) => (done(), reject(error as Error)),
      }
      const abort = () => {
        const index = open.waiting.indexOf(waiter)
        if (index >= 0) open.waiting.splice(index, 1)
        waiter.reject(signal.reason)
      }
      signal.addEventListener('abort', abort, { once: true })
      open.waiting.push(waiter)
      if (signal.aborted) abort()
    })
  }

  /** Steps before `step` are history: forgotten, and ignored from now on. */
  forgetBefore(step: number): void {
    this.#oldest = Math.max(this.#oldest, step)
    for (const [known, open] of [...this.#steps]) {
      if (known >= this.#oldest) continue
      this.#steps.delete(known)
      for (const { resolve } of open.waiting.splice(0)) resolve(null)
    }
  }

  #open(step: number): OpenStep {
    let open = this.#steps.get(step)
    if (!open) this.#steps.set(step, (open = new OpenStep(step, this.#expects)))
    return open
  }

  #bury(open: OpenStep, { kind, id, cause }: EventData<'dead'>): void {
    for (const item of itemsOf(open, kind, id)) {
      open.dead.set(item, cause)
      if (kind === 'questioner.images') open.deadImages++
      else open.settled.add(item)
    }
  }

  #exhume(open: OpenStep, { kind, id }: EventData<'retried'>): void {
    for (const item of itemsOf(open, kind, id)) {
      if (!open.dead.delete(item)) continue
      if (kind === 'questioner.images') open.deadImages--
      else if (!open.verdicts.has(item)) open.settled.delete(item)
    }
  }

  #announce(open: OpenStep): void {
    for (let i = open.waiting.length - 1; i >= 0; i--) {
      const { milestone, resolve } = open.waiting[i]!
      if (!open.reached(milestone)) continue
      open.waiting.splice(i, 1)
      resolve(open)
    }
  }
}
