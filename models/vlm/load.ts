/** Opens a model in a thread of its own: what actors and commands use. */
import { Worker } from 'node:worker_threads'
import { checkSameShapes } from './weights.ts'
import type { GrpoConfig } from '../losses/grpo-config.ts'
import type {
  GenerateRequest,
  Generated,
  ImageSource,
  Model,
  PolicyGradient,
  PolicyGroup,
  SampledToken,
} from '../model.ts'
import type { Weights } from '../tensor.ts'
import type { LoadOptions } from './load-options.ts'
import type { Call, FromWorker, Keyed, ToWorker, WorkerStart } from './worker-messages.ts'

/**
 * Loads a checkpoint folder (any family of registry.ts) in a worker thread.
 *
 * @throws CheckpointError when the folder, a file, a tensor or the architecture is not what it should be.
 */
export function loadModel(dir: string, options: LoadOptions = {}): Promise<Model> {
  const start: WorkerStart = { dir, options }
  const worker = new Worker(new URL('./model-worker.mjs', import.meta.url), { workerData: start })
  return new Promise((resolve, reject) => {
    worker.once('error', reject)
    worker.once('message', (message: FromWorker) => {
      worker.off('error', reject)
      if (message.kind === 'ready') return resolve(new RemoteModel(worker, message.about, message.trainable))
      void worker.terminate()
      reject(message.kind === 'failed' ? asError(message.error) : new Error(`unexpected first message ${message.kind}`))
    })
  })
}

interface Pending {
  readonly images: ReadonlyMap<string, ImageSource>
  readonly onToken: ((token: SampledToken) => void) | undefined
  resolve(value: unknown): void
  reject(error: Error): void
}

/** A `Model` whose work happens in the worker; calls are served in order. */
class RemoteModel implements Model {
  readonly family: string
  readonly device: string
  readonly parameters: Model['parameters']
  readonly #pending = new Map<number, Pending>()
  #weights: Weights
  #next = 0
  #gone: Error | null = null

  constructor(
    private readonly worker: Worker,
    about: Pick<Model, 'family' | 'device' | 'parameters'>,
    trainable: Weights,
  ) {
    this.family = about.family
    this.device = about.device
    this.parameters = about.parameters
    this.#weights = trainable
    worker.on('message', (message: FromWorker) => this.#receive(message))
    worker.on('error', (error) => this.#end(asError(error)))
    worker.on('exit', () => this.#end(new Error('the thread of the model has ended')))
  }

  trainable(): Weights {
    return this.#weights
  }

  load(weights: Weights): void {
    checkSameShapes(this.#weights, weights)
    this.#weights = weights
    // Served before every later call; it was checked above, so it cannot fail there.
    this.#call({ method: 'load', weights }, []).catch(() => undefined)
  }

  generate(
    requests: readonly GenerateRequest[],
    onToken?: (token: SampledToken) => void,
  ): Promise<readonly Generated[]> {
    const call: Call = { method: 'generate', requests: requests.map(keyed), listen: onToken !== undefined }
    return this.#call(call, requests, onToken)
  }

  logprobs(groups: readonly PolicyGroup[]): Promise<readonly (readonly number[])[][]> {
    return this.#call({ method: 'logprobs', groups: groups.map(keyed) }, groups)
  }

  policyGradient(groups: readonly PolicyGroup[], loss: GrpoConfig): Promise<PolicyGradient> {
    return this.#call({ method: 'policyGradient', groups: groups.map(keyed), loss }, groups)
  }

  async dispose(): Promise<void> {
    if (this.#gone) return
    await this.#call({ method: 'dispose' }, [])
    await this.worker.terminate()
  }

  #call<T>(
    call: Call,
    items: readonly { readonly image: ImageSource | null }[],
    onToken?: (token: SampledToken) => void,
  ): Promise<T> {
    if (this.#gone) return Promise.reject(this.#gone)
    const id = this.#next++
    const images = new Map(items.flatMap(({ image }) => (image ? [[image.key, image] as const] : [])))
    return new Promise((resolve, reject) => {
      this.#pending.set(id, { images, onToken, resolve: resolve as (value: unknown) => void, reject })
      this.#send({ kind: 'call', id, call })
    })
  }

  #send(message: ToWorker): void {
    this.worker.postMessage(message)
  }

  #receive(message: FromWorker): void {
    switch (message.kind) {
      case 'need':
        return void this.#provide(message.key)
      case 'token':
        return this.#pending.get(message.id)?.onToken?.(message.token)
      case 'result':
        this.#take(message.id)?.resolve(message.value)
        return
      case 'error':
        this.#take(message.id)?.reject(asError(message.error))
        return
      case 'ready':
      case 'failed':
    }
  }

  #take(id: number): Pending | undefined {
    const pending = this.#pending.get(id)
    this.#pending.delete(id)
    return pending
  }

  async #provide(key: string): Promise<void> {
    const source = [...this.#pending.values()].map((p) => p.images.get(key)).find((s) => s !== undefined)
    try {
      if (!source) throw new Error(`no call in progress has the image ${key}`)
      this.#send({ kind: 'image', key, bytes: await source.read() })
    } catch (error) {
      this.#send({ kind: 'no-image', key, error })
    }
  }

  #end(error: Error): void {
    this.#gone ??= error
    for (const pending of this.#pending.values()) pending.reject(error)
    this.#pending.clear()
  }
}

const keyed = <T extends { readonly image: ImageSource | null }>(item: T): Keyed<T> => ({
  ...item,
  image: item.image && { key: item.image.key },
})

const asError = (error: unknown): Error => (error instanceof Error ? error : new Error(String(error)))
