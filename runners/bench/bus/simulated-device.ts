/**
 * A model whose device is a clock: every batch takes the same time and costs no processor, so that what is left to
 * measure is the bus and the actors around it. It takes the place of a machine that this one is not; for nothing else.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import type { Generated, GenerateRequest, Model, Sample } from '../../../models/model.ts'
import type { Weights } from '../../../models/tensor.ts'
import { checkSameShapes } from '../../../models/vlm/weights.ts'

export interface DeviceOptions {
  /** Of every batch, whatever is in it. */
  readonly batchMs: number
  /** Of every completion. */
  readonly tokens: number
  readonly weights: Weights
  /** Called when other weights have been swapped in. */
  readonly onLoad: () => void
}

const PROMPT_TOKENS = 96
const VOCABULARY = 49_280

export class SimulatedDevice implements Model {
  readonly family = 'simulated'
  readonly device = 'clock'
  readonly parameters: Model['parameters']
  readonly #options: DeviceOptions
  readonly #sample: Sample
  #weights: Weights

  constructor(options: DeviceOptions) {
    this.#options = options
    this.#weights = options.weights
    this.#sample = sampleOf(options.tokens)
    const trainable = Object.values(options.weights).reduce((n, { data }) => n + data.length, 0)
    this.parameters = { total: trainable, trainable }
  }

  trainable(): Weights {
    return this.#weights
  }

  /** The same checks as those of a real model. */
  load(weights: Weights): void {
    checkSameShapes(this.#weights, weights)
    this.#weights = weights
    this.#options.onLoad()
  }

  async generate(requests: readonly GenerateRequest[]): Promise<readonly Generated[]> {
    await sleep(this.#options.batchMs)
    return requests.map(({ samples }) => ({
      samples: Array.from({ length: samples }, () => this.#sample),
      promptTokens: PROMPT_TOKENS,
    }))
  }

  logprobs(): Promise<never> {
    return Promise.reject(new Error('the simulated device only generates'))
  }

  policyGradient(): Promise<never> {
    return Promise.reject(new Error('the simulated device only generates'))
  }

  dispose(): Promise<void> {
    return Promise.resolve()
  }
}

/** Written as long as a real one: five-digit tokens, logprobs of float32 with all their digits, four letters a token. */
function sampleOf(tokens: number): Sample {
  const steps = Array.from({ length: tokens }, (_, t) => t)
  return {
    text: steps.map((t) => ['some', 'word'][t % 2]).join(' '),
    tokens: steps.map((t) => 10_000 + ((t * 7919) % (VOCABULARY - 10_000))),
    logprobs: steps.map((t) => Math.fround(-0.1 - Math.sin(t + 1) ** 2)),
    finished: true,
  }
}
