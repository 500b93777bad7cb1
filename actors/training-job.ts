/** The Optimizer's work behind its machine: what is too large, or too private, for the machine's context. */
import type { HeadEntry } from '../bus/bus.ts'
import type { Head } from '../bus/messages.ts'
import type { Weights } from '../models/tensor.ts'
import { assemble } from './assemble.ts'
import { stepId, versionId } from './ids.ts'
import { fresh, restore, store, type Learned } from './learner.ts'
import type { Ports } from './ports.ts'
import { retire, type RetentionOptions } from './retention.ts'
import { StepBook, type StepBatch } from './step-book.ts'
import { StopWatch } from './stop-watch.ts'
import { updateStep, type StepUpdate, type UpdateOptions } from './update-step.ts'

export interface OptimizerOptions extends UpdateOptions, RetentionOptions {
  /** Trainable weights of the base: version 0 of a new run. */
  readonly base: () => Weights | Promise<Weights>
  /** Steps of the run. */
  readonly steps: number
  /** Images of a step, assumed until the log says it. */
  readonly images: number
  /** Figures of a judged batch, for the `step` event. */
  readonly batchMetrics: (batch: StepBatch) => Promise<Readonly<Record<string, number | null>>>
}

export type Commit = 'committed' | 'superseded'

/** See the machine in optimizer.ts for when each of these happens. */
export class TrainingJob {
  readonly book: StepBook
  readonly #ports: Ports
  readonly #options: OptimizerOptions
  #learned: Learned | null = null
  #head: HeadEntry | null = null
  /** Counts takeovers: what belongs to an earlier one, and ends late, must change nothing. */
  #term = 0
  #batch: StepBatch | null = null
  #update: StepUpdate | null = null
  readonly #watch: StopWatch

  constructor(ports: Ports, options: OptimizerOptions) {
    this.#ports = ports
    this.#options = options
    this.book = new StepBook(options.images)
    this.#watch = new StopWatch(ports.clock)
  }

  get version(): number | null {
    return this.#head?.head.version ?? null
  }

  async restore(): Promise<{ version: number; epoch: number }> {
    const { bus } = this.#ports
    const term = ++this.#term
    const known = await bus.getHead()
    const head = known ? { ...known.head, epoch: known.head.epoch + 1 } : await this.#base()
    if (!(await bus.moveHead(head, known?.revision ?? null))) throw new Error('another Optimizer takes over just now')
    const entry = await bus.getHead()
    if (entry?.head.epoch !== head.epoch) throw new Error('another Optimizer has taken over already')
    const learned = await restore(bus, head)
    if (term !== this.#term) throw new Error('this Optimizer has begun again meanwhile')
    this.#head = entry
    this.#learned = learned
    this.book.forgetBefore(head.version)
    await this.#recordVersion(head)
    if (head.version > 0 && !(await bus.find('step', stepId(head.version)))) await this.#recordLost(head)
    this.book.forgetBefore(head.version + 1)
    return { version: head.version, epoch: head.epoch }
  }

  async #base(): Promise<Head> {
    const blobs = await store(this.#ports.bus, fresh(await this.#options.base()))
    return { version: 0, parent: null, ...blobs, epoch: 1, consumed: [] }
  }

  async collect(step: number, signal: AbortSignal): Promise<void> {
    this.#watch.start()
    const batch = await this.book.when(step, 'judged', signal)
    signal.throwIfAborted()
    if (!batch) throw new Error(`step ${step} is committed already`)
    this.#batch = batch
    this.#watch.lap('rollout')
  }

  async update(step: number, signal: AbortSignal): Promise<void> {
    const update = await updateStep(this.#ports, this.#batch!, step - 1, this.#learned!, this.#options, signal)
    signal.throwIfAborted()
    this.#update = update
    this.#watch.lap('update')
  }

  async commit(step: number, epoch: number): Promise<Commit> {
    const { bus } = this.#ports
    const term = this.#term
    const { learned, groups } = this.#update!
    // The head that this update was made on. Who wakes up here after a long time may have taken over anew meanwhile.
    const { revision } = this.#head!
    const blobs = await store(bus, learned)
    const head: Head = { version: step, parent: step - 1, ...blobs, epoch, consumed: [...groups] }
    if (!(await bus.moveHead(head, revision))) return 'superseded'
    const entry = await bus.getHead()
    if (term !== this.#term || entry?.head.epoch !== epoch) return 'superseded'
    this.#head = entry
    this.#learned = learned
    this.#watch.lap('commit')
    return 'committed'
  }

  async record(step: number): Promise<void> {
    const { bus } = this.#ports
    const { groups, dropped, metrics, garbage } = this.#update!
    const batch = this.#batch!
    const { head } = this.#head!
    const { seconds, laps } = this.#watch
    await this.#recordVersion(head)
    await this.#recordStep(batch, {
      groups,
      dropped,
      seconds,
      metrics: { ...metrics, ...laps, ...pace(batch, step, seconds) },
    })
    this.book.forgetBefore(step + 1)
    await Promise.all(garbage.map((blob) => bus.deleteBlob(blob)))
    await retire(bus, step, this.#options)
  }

  async #recordStep(
    batch: StepBatch,
    { groups, dropped, seconds, metrics }: Omit<StepUpdate, 'learned' | 'garbage'> & { readonly seconds: number },
  ): Promise<void> {
    const { bus } = this.#ports
    const { step } = batch
    await Promise.all(dropped.map(({ group, reason }) => bus.append('dropped', group, { step, group, reason })))
    const figures = finite({ ...(await this.#options.batchMetrics(batch)), ...metrics })
    await bus.append('step', stepId(step), { step, weights: step, metrics: figures, groups: [...groups], seconds })
  }

  async #recordVersion({ version, parent, adapter, optimizer, epoch, consumed }: Head): Promise<void> {
    const data = { weights: version, parent, adapter, optimizer, epoch, consumed }
    await this.#ports.bus.append('version', versionId(version), data)
  }

  /** The Optimizer before this one died between moving the head and recording it: figures of its gradients are lost. */
  async #recordLost({ version, consumed }: Head): Promise<void> {
    const batch = await this.#ports.within(RECOVERY_MS, (signal) => this.book.when(version, 'judged', signal))
    if (!batch) return
    const { parts, dropped } = assemble(batch, version - 1, this.#options)
    const trained = new Set(consumed)
    const lost = parts
      .flatMap((part) => part.groups)
      .filter((group) => !trained.has(group))
      .map((group) => ({ group, reason: 'its gradient was lost' }))
    await this.#recordStep(batch, { groups: consumed, dropped: [...dropped, ...lost], seconds: 0, metrics: {} })
  }
}

/** Tokens that both roles sampled per second of the step, and how far behind the head they were at most. */
function pace({ images, answers }: StepBatch, step: number, seconds: number): Record<string, number> {
  const sampled = [...images.values()].flatMap((image) => image.questions.map((q) => q.completion))
  const completions = [...sampled, ...[...answers.values()].flatMap((group) => group.completions)]
  const tokens = completions.reduce((sum, completion) => sum + completion.tokens.length, 0)
  const weights = [...images.values(), ...answers.values()].map((event) => event.weights)
  const lag = weights.reduce((most, version) => Math.max(most, step - 1 - version), 0)
  return { lag, ...(seconds > 0 ? { tokens_per_second: tokens / seconds } : {}) }
}

/** JSON has neither NaN nor infinity: null says that there is no such figure. */
function finite(metrics: Readonly<Record<string, number | null>>): Record<string, number | null> {
  return Object.fromEntries(Object.entries(metrics).map(([name, v]) => [name, Number.isFinite(v) ? v : null]))
}

/** A committed step is judged, so its batch is in the log: reading it takes a moment at most. */
const RECOVERY_MS = 10_000
