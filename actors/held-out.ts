/** Held-out questions asked through the bus, many in one request. */
import { readFile } from 'node:fs/promises'
import type { Completion, Task } from '../bus/messages.ts'
import type { EvalQuestion } from './eval-set.ts'
import type { Ports, Prompt } from './ports.ts'
import { extractAnswer } from './rewards/normalize.ts'
import type { AnsweredQuestion } from './scoring.ts'

export interface HeldOutOptions {
  /** The Reasoner's prompt, with `{question}` in it. */
  readonly prompt: string
  readonly maxNewTokens: number
  /** Samples per question at temperature 1. */
  readonly samples: number
  readonly seed: number
}

/** Questions of one request: a reply stays far below the size of a message. */
const CHUNK = 64
/** Requests under way: the device never waits, and training never waits long. */
const CONCURRENCY = 4

export class HeldOut {
  readonly #ports: Ports
  readonly #options: HeldOutOptions
  /** Blob of each image file. */
  readonly #blobs = new Map<string, Promise<string>>()

  constructor(ports: Ports, options: HeldOutOptions) {
    this.#ports = ports
    this.#options = options
  }

  /** Greedy answer and samples of a version to each question. `name` keeps requests of different sets apart. */
  async ask(
    version: number,
    name: string,
    questions: readonly EvalQuestion[],
    signal: AbortSignal,
  ): Promise<AnsweredQuestion[]> {
    const chunks = Array.from({ length: Math.ceil(questions.length / CHUNK) }, (_, i) =>
      questions.slice(i * CHUNK, (i + 1) * CHUNK),
    )
    const answered: AnsweredQuestion[][] = []
    let next = 0
    const work = async () => {
      for (let i = next++; i < chunks.length; i = next++) {
        answered[i] = await this.#askChunk(version, `eval-v${version}-${name}-${i}`, chunks[i]!, signal)
      }
    }
    await Promise.all(Array.from({ length: CONCURRENCY }, work))
    return answered.flat()
  }

  async #askChunk(
    version: number,
    id: string,
    questions: readonly EvalQuestion[],
    signal: AbortSignal,
  ): Promise<AnsweredQuestion[]> {
    const { prompt, samples } = this.#options
    const prompts = await Promise.all(
      questions.map(async ({ image, question }) => ({
        image: await this.#blob(image),
        text: prompt.replaceAll('{question}', () => question),
      })),
    )
    // One cohort, so that the greedy answer and the samples share their prefixes.
    const request = (kind: 'greedy' | 'samples', task: Pick<Task<'model.generate'>, 'samples' | 'temperature'>) =>
      this.#request(
        `${id}-${kind}`,
        { ...task, weights: version, cohort: { id, size: 2 * prompts.length } },
        prompts,
        signal,
      )
    const [greedy, sampled] = await Promise.all([
      request('greedy', { samples: 1, temperature: 0 }),
      request('samples', { samples, temperature: 1 }),
    ])
    return questions.map(({ type, accepted }, i) => ({
      type,
      accepted,
      greedy: extractAnswer(greedy[i]![0]!),
      samples: sampled[i]!.map(extractAnswer),
    }))
  }

  async #request(
    id: string,
    task: Pick<Task<'model.generate'>, 'samples' | 'temperature' | 'weights' | 'cohort'>,
    prompts: readonly Prompt[],
    signal: AbortSignal,
  ): Promise<readonly (readonly Completion[])[]> {
    const { maxNewTokens, seed } = this.#options
    const settings = { ...task, maxNewTokens, seed, minWeights: 0 }
    return (await this.#ports.sample(id, prompts, settings, { signal, again: true })).completions
  }

  /** Puts an image file into the store, once. */
  #blob(file: string): Promise<string> {
    let blob = this.#blobs.get(file)
    if (!blob) {
      blob = readFile(file).then((bytes) => this.#ports.bus.putBlob(bytes))
      this.#blobs.set(file, blob)
      blob.catch(() => this.#blobs.delete(file))
    }
    return blob
  }
}
