/** Requests for completions as the actors of a run make them: on the queue, and their replies out of the log. */
import { setMaxListeners } from 'node:events'
import { Ports } from '../../../actors/ports.ts'
import type { LogRecord } from '../../../bus/bus.ts'
import type { Task } from '../../../bus/messages.ts'
import type { Net } from '../../../bus/net.ts'
import { instanceOf } from '../../evolve/instance.ts'

export interface RequestSettings {
  /** Completions of each. */
  readonly rows: number
  readonly tokens: number
  readonly minWeights: number
}

const PROMPT =
  'Look at the image and answer the question in one or two words. Question: which shape is to the right of the red one?'

export class Requests {
  readonly #ports: Ports
  readonly #image: string
  readonly #stop = new AbortController()
  readonly #loops = new Set<Promise<void>>()
  readonly #warned: (message: string) => void
  #next = 0

  private constructor(ports: Ports, image: string, onWarning: (message: string) => void) {
    this.#ports = ports
    this.#image = image
    this.#warned = onWarning
    // Every request under way listens.
    setMaxListeners(0, this.#stop.signal)
  }

  static async open(net: Net, onWarning: (message: string) => void): Promise<Requests> {
    const warn = (message: string, error: unknown) => onWarning(`${message}: ${String(error)}`)
    const ports = new Ports(net.connect(instanceOf('reasoner')), { onWarning: warn })
    return new Requests(ports, await ports.bus.putBlob(new TextEncoder().encode('an image')), onWarning)
  }

  /** One request. Each is a cohort of its own, hence a batch of its own. */
  async ask({ rows, tokens, minWeights }: RequestSettings): Promise<LogRecord<'generated'>> {
    const id = `bench-${++this.#next}`
    const task: Task<'model.generate'> = {
      image: this.#image,
      prompt: PROMPT,
      samples: rows,
      maxNewTokens: tokens,
      temperature: 1,
      seed: this.#next,
      minWeights,
      cohort: { id, size: 1 },
      weights: null,
    }
    return this.#ports.request('model.generate', id, task, { signal: this.#stop.signal, again: false })
  }

  /** Keeps `inFlight` requests on their way until it is closed; `onReply` is told of each reply. */
  flood(inFlight: number, settings: RequestSettings, onReply: (reply: LogRecord<'generated'>) => void): void {
    for (let i = 0; i < inFlight; i++) {
      const loop = this.#loop(settings, onReply).catch((error: unknown) => {
        if (!this.#stop.signal.aborted) this.#warned(String(error))
      })
      this.#loops.add(loop)
    }
  }

  async #loop(settings: RequestSettings, onReply: (reply: LogRecord<'generated'>) => void): Promise<void> {
    while (!this.#stop.signal.aborted) onReply(await this.ask(settings))
  }

  async close(): Promise<void> {
    this.#stop.abort()
    await Promise.all(this.#loops)
    await this.#ports.close()
    await this.#ports.bus.close()
  }
}
