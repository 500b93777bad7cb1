/** Serves batches of requests with a model: decode, run, reply. The model actor decides when and which. */
import type { EventData } from '../bus/messages.ts'
import type { GenerateRequest, ImageSource, Model } from '../models/model.ts'
import { compareIds, type Batch, type Waiting } from './batcher.ts'
import { BlobCache } from './blob-cache.ts'
import { LostCauseError } from './dead-tasks.ts'
import { completionId } from './ids.ts'
import { decodeMicroBatch, policyGroups } from './micro-batch.ts'
import { causeOf, REPLIES, type Ports, type RequestKind, type TaskRef } from './ports.ts'
import { WeightLibrary } from './weight-library.ts'
import { encodeWeights } from './weights-codec.ts'

export type ModelTask = { [K in RequestKind]: TaskRef<K> }[RequestKind]
type TaskOf<K extends RequestKind> = Extract<ModelTask, { kind: K }>

/** Committed version and its adapter. */
export interface Current {
  readonly version: number
  readonly adapter: string
}

/** One prompt of a request. */
interface Prompt {
  /** Its completions are named by it and their place, from `first` on; the batch is ordered by it. */
  readonly name: string
  readonly first: number
  readonly request: GenerateRequest
}

const IMAGE_CACHE_BYTES = 256 * 2 ** 20

/** The newest weights do not load; the cause says why. */
export class WeightsError extends Error {
  override name = 'WeightsError'
  constructor(cause: unknown) {
    super(cause instanceof Error ? cause.message : String(cause), { cause })
  }
}

export class ModelServer {
  readonly #ports: Ports
  readonly #model: Model
  readonly #library: WeightLibrary
  readonly #images: BlobCache
  /** A gradient on its way to the bus. */
  #storing: Promise<void> = Promise.resolve()
  readonly #held = new Map<string, { readonly task: ModelTask; readonly waiting: Waiting }>()

  constructor(ports: Ports, model: Model) {
    this.#ports = ports
    this.#model = model
    this.#library = new WeightLibrary(ports.bus, model)
    this.#images = new BlobCache(ports.bus, IMAGE_CACHE_BYTES)
  }

  /** Requests that wait for a batch. */
  *waiting(): Iterable<Waiting> {
    for (const { waiting } of this.#held.values()) yield waiting
  }

  get size(): number {
    return this.#held.size
  }

  hold(task: ModelTask): void {
    this.#held.set(task.key, { task, waiting: describe(task) })
  }

  /** Everything that is held goes to whoever takes it next. */
  release(): void {
    for (const key of this.#held.keys()) this.#ports.handOver(key)
    this.#held.clear()
  }

  /** Brings the newest weights into the model; rejects when they do not load. */
  async load({ adapter }: Current): Promise<void> {
    await this.#library.load(adapter).catch((error: unknown) => {
      throw new WeightsError(error)
    })
  }

  /**
   * Runs a batch and replies; a request that fails goes back to the queue alone. Rejects when the newest weights do not
   * load, or the log cannot be asked: then everything waits for better times.
   */
  async serve(batch: Batch, head: Current): Promise<void> {
    const version = batch.weights ?? head.version
    const tasks = await this.#unanswered(batch, head)
    if (tasks.length === 0) return
    try {
      await this.#library.load(version === head.version ? head.adapter : await this.#library.adapterOf(version))
    } catch (error) {
      if (version === head.version) throw new WeightsError(error)
      for (const { key } of tasks) this.#held.delete(key)
      for (const { key } of tasks) this.#ports.giveBack(key, error)
      return
    }
    for (const { key } of tasks) this.#held.delete(key)
    try {
      await this.#run(tasks, version)
    } catch (error) {
      if (tasks.length === 1) this.#refuse(tasks[0]!, version, error)
      else
        for (const task of tasks) await this.#run([task], version).catch((e: unknown) => this.#refuse(task, version, e))
    }
  }

  /** A rollout of several prompts is told of the failure at once: who asked for it asks for each prompt alone. */
  #refuse(task: ModelTask, version: number, error: unknown): void {
    const several = task.kind === 'model.generate' && task.data.rollout === true && (task.data.also ?? []).length > 0
    if (!several) return this.#ports.giveBack(task.key, error)
    this.#ports.warn(`request ${task.id}, which is answered with the error`, error)
    const nothing = { ...this.#stamp(version, 0), promptTokens: 0, completions: [] }
    this.#reply(task, 'generated', { ...nothing, error: causeOf(error) })
  }

  /**
   * A request delivered again may have its reply in the log; a gradient of a past version helps nobody any more, and its
   * weights may be gone.
   */
  async #unanswered({ keys }: Batch, head: Current): Promise<ModelTask[]> {
    const tasks = keys.map((key) => this.#held.get(key)!.task)
    const answered = await Promise.all(
      tasks.map(async (task) => {
        if (task.kind === 'model.gradient' && task.data.weights < head.version) return true
        if (task.deliveries === 1) return false
        return (await this.#ports.bus.find(REPLIES[task.kind], task.id)) !== null
      }),
    )
    tasks.forEach(({ key }, i) => {
      if (!answered[i]) return
      this.#held.delete(key)
      this.#ports.ack(key)
    })
    return tasks.filter((_, i) => !answered[i])
  }

  async #run(tasks: readonly ModelTask[], version: number): Promise<void> {
    const generate = tasks.filter((task) => task.kind === 'model.generate')
    if (generate.length > 0) await this.#generate(generate, version)
    for (const task of tasks) {
      if (task.kind === 'model.logprobs') await this.#logprobs(task, version)
      if (task.kind === 'model.gradient') await this.#gradient(task, version)
    }
  }

  async #generate(tasks: readonly TaskOf<'model.generate'>[], version: number): Promise<void> {
    const started = this.#ports.clock.now()
    const asked = tasks.map((task) => this.#prompts(task))
    // Prompts stand in the batch as if each had come alone, so that the numbers do not depend on how they were packed.
    const order = asked.flat().toSorted((a, b) => compareIds(a.name, b.name))
    const generated = await this.#model.generate(order.map(({ request }) => request))
    const replies = new Map(order.map((prompt, i) => [prompt, generated[i]!]))
    const seconds = (this.#ports.clock.now() - started) / 1000 / tasks.length
    for (const [i, task] of tasks.entries()) {
      const own = asked[i]!
      this.#reply(task, 'generated', {
        ...this.#stamp(version, seconds),
        promptTokens: own.reduce((sum, prompt) => sum + replies.get(prompt)!.promptTokens, 0),
        completions: own.flatMap((prompt) =>
          replies.get(prompt)!.samples.map((sample, g) => ({
            id: completionId(prompt.name, prompt.first + g),
            text: sample.text,
            tokens: [...sample.tokens],
            logprobs: [...sample.logprobs],
            finished: sample.finished,
          })),
        ),
      })
    }
  }

  #prompts({ id, data }: TaskOf<'model.generate'>): Prompt[] {
    const { samples, maxNewTokens, temperature, seed, rollout = false, also = [] } = data
    return [{ key: data.key, image: data.image, text: data.prompt }, ...also].map(({ key, image, text }, i) => ({
      name: key ?? id,
      first: key === undefined ? i * samples : 0,
      request: {
        key: key ?? (i === 0 ? id : `${id}-also${i}`),
        image: image === null ? null : this.#image(image),
        prompt: text,
        samples,
        maxNewTokens,
        temperature,
        seed,
        rollout,
      },
    }))
  }

  async #logprobs(task: TaskOf<'model.logprobs'>, version: number): Promise<void> {
    const started = this.#ports.clock.now()
    const { image, prompt, completions } = task.data
    const group = {
      image: this.#image(image),
      prompt,
      completions: completions.map((tokens) => ({ tokens, logprobs: [], advantage: 0, weight: 0 })),
    }
    const [logprobs] = await this.#model.logprobs([group])
    const seconds = (this.#ports.clock.now() - started) / 1000
    this.#reply(task, 'logprobs', { ...this.#stamp(version, seconds), logprobs: logprobs!.map((l) => [...l]) })
  }

  async #gradient(task: TaskOf<'model.gradient'>, version: number): Promise<void> {
    const started = this.#ports.clock.now()
    const { step, index, batch } = task.data
    const micro = decodeMicroBatch(await this.#ports.bus.getBlob(batch))
    const groups = policyGroups(micro, (blob) => this.#image(blob))
    const { gradients, loss, metrics, tokens } = await this.#model.policyGradient(groups, micro.loss)
    const seconds = (this.#ports.clock.now() - started) / 1000
    if (!Number.isFinite(loss)) throw new LostCauseError(`the loss of ${task.id} is ${loss}`)
    const bytes = encodeWeights(gradients)
    const figures = {
      ...this.#stamp(version, seconds),
      step,
      index,
      loss,
      tokens,
      // Nothing was seen of a figure that is NaN; JSON has no word for it.
      metrics: Object.fromEntries(Object.entries(metrics).filter(([, value]) => Number.isFinite(value))),
    }
    // The next gradient is computed while this one is stored; no more than one waits, however slow the network is.
    await this.#storing
    this.#storing = this.#ports.bus.putBlob(bytes).then(
      (gradient) => this.#reply(task, 'gradient', { ...figures, gradient }),
      (error: unknown) => this.#ports.giveBack(task.key, error),
    )
  }

  #image(blob: string): ImageSource {
    return { key: blob, read: () => this.#images.get(blob) }
  }

  #stamp(weights: number, seconds: number) {
    return { weights, device: this.#model.device, seconds }
  }

  /** In the background, so that the next batch need not wait: result first, then the acknowledgement. */
  #reply<E extends 'generated' | 'logprobs' | 'gradient'>(task: ModelTask, event: E, data: EventData<E>): void {
    this.#ports.bus.append(event, task.id, data, task).then(
      () => this.#ports.ack(task.key),
      (error: unknown) => this.#ports.giveBack(task.key, error),
    )
  }
}

function describe(task: ModelTask): Waiting {
  const { key, id, kind } = task
  switch (kind) {
    case 'model.generate': {
      const { samples, also = [], minWeights, weights, cohort } = task.data
      const prompts = 1 + also.length
      return { key, id, kind, minWeights, weights, cohort, prompts, rows: samples * prompts }
    }
    case 'model.logprobs':
      return {
        key,
        id,
        kind,
        minWeights: task.data.minWeights,
        weights: null,
        cohort: null,
        prompts: 1,
        rows: task.data.completions.length,
      }
    case 'model.gradient':
      return {
        key,
        id,
        kind,
        minWeights: task.data.weights,
        weights: task.data.weights,
        cohort: null,
        prompts: 1,
        rows: 1,
      }
  }
}
