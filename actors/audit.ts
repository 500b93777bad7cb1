/**
 * What must hold of every run, whatever went wrong on its way: checked on the log and on the moves of the head. The
 * carriers promise at least once; that the effects are those of exactly once is what is proven here. (The first and
 * the last two need the bytes, the blobs and the settings of the run: see runners/audit.)
 */
import type { HeadEntry, LogRecord } from '../bus/bus.ts'
import type { EventData, EventName, Head } from '../bus/messages.ts'
import { holdsGroup, imagesOf, imageTaskId, isLoopReply, stepOf, versionId } from './ids.ts'

export const INVARIANTS = {
  readable: 'every record is a message that this release understands',
  'one-record': 'an id has one record',
  'one-end': 'every task of a committed step has its result in the log, or was given up with a cause',
  'consumed-once': 'no group is trained by two versions',
  'nothing-left-out': 'every group of a committed step is trained, or dropped with a reason',
  lineage: 'versions have no gap, each names its parent, epochs never fall',
  head: 'the head went through the recorded versions in order, and epochs never fell',
  'loaded-in-order': 'a model actor works with committed versions only, and never goes back',
  'update-follows': 'every update is the one that follows from the verdicts in the log',
  blobs: 'what a version names has its sha256; what the newest one names is there',
} as const
export type Invariant = keyof typeof INVARIANTS

export interface Violation {
  readonly invariant: Invariant
  /** Id of what it is about. */
  readonly about: string
  readonly message: string
}

export interface AuditOptions {
  /** Whether the groups of a role are trained at all. */
  readonly trains: { readonly questioner: boolean; readonly reasoner: boolean }
}

export type AuditRecord = { [E in EventName]: LogRecord<E> }[EventName]

interface Reply {
  readonly id: string
  readonly at: string
  readonly weights: number
}

const taskName = ({ kind, id }: { readonly kind: string; readonly id: string }): string => `${kind} ${id}`

export class Audit {
  readonly #options: AuditOptions
  readonly #violations: Violation[] = []
  readonly #seen = new Map<string, number>()
  readonly #versions: EventData<'version'>[] = []
  readonly #committed = new Map<number, EventData<'step'>>()
  readonly #asked = new Map<number, Map<number, EventData<'questions'>>>()
  readonly #answered = new Set<string>()
  readonly #verdicts = new Map<string, EventData<'verdict'>>()
  readonly #dropped = new Map<string, string>()
  readonly #dead = new Map<string, { readonly kind: string; readonly id: string }>()
  readonly #replies = new Map<string, Reply[]>()

  constructor(options: AuditOptions) {
    this.#options = options
  }

  /** Takes the records of a log in order. */
  apply(record: AuditRecord): void {
    const { event, id, seq, message } = record
    const before = this.#seen.get(`${event}.${id}`)
    if (before !== undefined) {
      this.#violated('one-record', id, `records ${before} and ${seq} are both ${event} of ${id}`)
      return
    }
    this.#seen.set(`${event}.${id}`, seq)
    switch (event) {
      case 'questions': {
        const { step, index } = record.message.data
        this.#asked.set(step, (this.#asked.get(step) ?? new Map()).set(index, record.message.data))
        return
      }
      case 'answers':
        return void this.#answered.add(id)
      case 'verdict':
        return void this.#verdicts.set(id, record.message.data)
      case 'dropped':
        return void this.#dropped.set(id, record.message.data.reason)
      case 'dead':
        return void this.#dead.set(taskName(record.message.data), record.message.data)
      case 'retried':
        return void this.#dead.delete(taskName(record.message.data))
      case 'version':
        return void this.#versions.push(record.message.data)
      case 'step':
        return void this.#committed.set(record.message.data.step, record.message.data)
      case 'generated':
      case 'logprobs':
      case 'gradient': {
        if (!isLoopReply(id)) return
        const { weights } = record.message.data
        const replies = this.#replies.get(message.by) ?? []
        replies.push({ id, at: message.at, weights })
        return void this.#replies.set(message.by, replies)
      }
      case 'image':
      case 'eval':
      case 'remark':
      case 'alarm':
        return
    }
  }

  /** Everything that does not hold; `heads` are the moves of the head that are still known, oldest first. */
  finish(heads: readonly HeadEntry[]): readonly Violation[] {
    this.#checkLineage()
    this.#checkHeads(heads.map(({ head }) => head))
    this.#checkConsumed()
    for (const step of this.#committed.keys()) this.#checkStep(step)
    this.#checkLoaded()
    return this.#violations
  }

  #violated(invariant: Invariant, about: string, message: string): void {
    this.#violations.push({ invariant, about, message })
  }

  #checkLineage(): void {
    this.#versions.forEach(({ weights, parent, epoch }, i) => {
      const id = versionId(weights)
      const before = this.#versions[i - 1]
      if (weights !== i) this.#violated('lineage', id, `version ${weights} is recorded where ${i} was due`)
      if (parent !== (before?.weights ?? null)) {
        this.#violated('lineage', id, `its parent is ${parent}, but ${before?.weights ?? 'nothing'} came before it`)
      }
      if (before && epoch < before.epoch) {
        this.#violated('lineage', id, `epoch ${epoch} comes after epoch ${before.epoch}`)
      }
    })
    const last = this.#versions.at(-1)?.weights ?? 0
    for (let step = 1; step <= last; step++) {
      if (!this.#committed.has(step) && step < last) this.#violated('lineage', versionId(step), 'it has no step event')
    }
  }

  /** An Optimizer that takes over moves the head to the same version under the next epoch. */
  #checkHeads(heads: readonly Head[]): void {
    heads.forEach((head, i) => {
      const id = versionId(head.version)
      const before = heads[i - 1]
      if (before && (head.epoch < before.epoch || head.version < before.version)) {
        const from = `version ${before.version} of epoch ${before.epoch}`
        this.#violated('head', id, `it went from ${from} to version ${head.version} of epoch ${head.epoch}`)
      }
      if (before && head.version > before.version + 1) {
        this.#violated('head', id, `it went from version ${before.version} to ${head.version}`)
      }
      const recorded = this.#versions.find((v) => v.weights === head.version)
      if (!recorded) {
        // The newest may be on its way into the log.
        if (i < heads.length - 1) this.#violated('head', id, 'it was never recorded')
      } else if (recorded.adapter !== head.adapter || recorded.optimizer !== head.optimizer) {
        this.#violated('head', id, 'the head had other weights than those that are recorded')
      }
    })
  }

  #checkConsumed(): void {
    const consumedBy = new Map<string, number>()
    for (const { weights, consumed } of this.#versions) {
      for (const group of consumed) {
        const first = consumedBy.get(group)
        if (first !== undefined) this.#violated('consumed-once', group, `versions ${first} and ${weights} trained it`)
        if (this.#dropped.has(group)) this.#violated('consumed-once', group, `trained by ${weights}, and dropped`)
        if (stepOf(group) !== weights) {
          this.#violated('consumed-once', group, `version ${weights} trained a group of another step`)
        }
        consumedBy.set(group, weights)
      }
    }
  }

  #checkStep(step: number): void {
    const images = this.#asked.get(step) ?? new Map<number, EventData<'questions'>>()
    const expects = [...images.values()][0]?.expects ?? 0
    const consumed = new Set(this.#versions.find((v) => v.weights === step)?.consumed)
    for (let index = 0; index < expects; index++) {
      const id = imageTaskId(step, index)
      const image = images.get(index)
      if (image) this.#checkImage(id, image, consumed)
      else if (!this.#gaveUpImage(id)) this.#violated('one-end', id, 'no questions were asked about this image')
    }
    for (const group of consumed) {
      const known = this.#verdicts.has(group) || images.has(Number(/^s\d+-i(\d+)$/.exec(group)?.[1] ?? NaN))
      if (!known) this.#violated('nothing-left-out', group, `version ${step} trained what nobody has judged`)
    }
  }

  #gaveUpImage(image: string): boolean {
    return [...this.#dead.values()].some(({ kind, id }) => kind === 'questioner.images' && imagesOf(id).includes(image))
  }

  #gaveUpGroup(group: string): boolean {
    const kinds = ['reasoner.questions', 'judge.groups']
    return [...this.#dead.values()].some(({ kind, id }) => kinds.includes(kind) && holdsGroup(id, group))
  }

  #checkImage(id: string, { questions }: EventData<'questions'>, consumed: ReadonlySet<string>): void {
    const { trains } = this.#options
    for (const { group, malformed } of questions) {
      const verdict = this.#verdicts.get(group)
      const dead = this.#gaveUpGroup(group)
      if (malformed === null && !this.#answered.has(group) && !dead) {
        this.#violated('one-end', group, 'its question was never answered')
      }
      if (!verdict && !dead) this.#violated('one-end', group, 'it was never judged')
      const refused = verdict?.reasoner?.keep === false && verdict.reasoner.dropped !== null
      const explained = consumed.has(group) || this.#dropped.has(group) || refused
      if (trains.reasoner && verdict?.reasoner && !explained) {
        this.#violated('nothing-left-out', group, 'it was judged, and neither trained nor dropped with a reason')
      }
    }
    const judged = questions.some(({ group }) => this.#verdicts.has(group))
    if (trains.questioner && judged && !consumed.has(id) && !this.#dropped.has(id)) {
      this.#violated('nothing-left-out', id, 'its questions were judged, and neither trained nor dropped with a reason')
    }
  }

  /** By the clock of each actor: answers of one actor may reach the log in another order than that of its work. */
  #checkLoaded(): void {
    const committed = new Set(this.#versions.map((v) => v.weights))
    for (const [by, replies] of this.#replies) {
      let newest = 0
      for (const { id, weights } of replies.toSorted((a, b) => (a.at < b.at ? -1 : a.at > b.at ? 1 : 0))) {
        if (!committed.has(weights))
          this.#violated('loaded-in-order', id, `${by} used version ${weights}, never committed`)
        if (weights < newest)
          this.#violated('loaded-in-order', id, `${by} went back from version ${newest} to ${weights}`)
        newest = Math.max(newest, weights)
      }
    }
  }
}
