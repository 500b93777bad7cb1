/** GRPO steps as the product makes them: both roles over pictures, or one prompt for each picture. */
import sharp from 'sharp'
import { tokenWeights } from '../../models/losses/normalization.ts'
import type { GenerateRequest, Generated, ImageSource, Model, PolicyGroup } from '../../models/model.ts'
import type { Picture, Processor } from '../../models/vlm/family.ts'
import { readPicture } from '../../models/vlm/pictures.ts'
import { Random } from '../world/random.ts'

export interface Workload {
  readonly images: number
  /** Samples of the first prompt, each of which becomes a prompt of its own (the Questioner's questions), or null. */
  readonly questions: Sampling | null
  /** Samples of each question, or of `prompt` where there are no questions. */
  readonly answers: Sampling
  readonly prompt: string
}

export interface Sampling {
  readonly samples: number
  readonly tokens: number
  readonly temperature: number
}

/** Completions of one prompt about one picture. */
export interface Rollout {
  readonly request: GenerateRequest
  readonly generated: Generated
}

/** Noise pictures; a new `name` gives pictures that no cache knows. */
export function noisePictures(count: number, pixels: number, name: string): ImageSource[] {
  return Array.from({ length: count }, (_, i) => {
    const random = new Random('noise', i)
    const bytes = () => {
      const raw = Uint8Array.from({ length: 3 * pixels ** 2 }, () => random.uint32() & 255)
      return sharp(raw, { raw: { width: pixels, height: pixels, channels: 3 } })
        .png({ compressionLevel: 0 })
        .toBuffer()
    }
    return { key: `${name}-${i}`, read: bytes }
  })
}

/** A noise picture as a family's processor prepares it. */
export async function noisePicture(processor: Processor, pixels: number): Promise<Picture> {
  return readPicture(processor, await noisePictures(1, pixels, 'sizes')[0]!.read())
}

/** Samples everything. Without the tree every completion brings its own picture prefix and prompt. */
export async function rollout(
  model: Model,
  { questions, answers, prompt }: Workload,
  pictures: readonly ImageSource[],
  { tree, seed, most }: { readonly tree: boolean; readonly seed: number; readonly most?: number },
): Promise<Rollout[]> {
  const ask = async (asked: readonly Asked[], sampling: Sampling) => {
    const requests = asked.flatMap((a, i) => requestsOf(a, sampling, { tree, seed, key: `${i}`, most }))
    const generated = await model.generate(requests)
    return requests.map((request, i) => ({ request, generated: generated[i]! }))
  }
  const first = pictures.map((image) => ({ image, prompt }))
  if (!questions) return ask(first, answers)
  const asked = await ask(first, questions)
  const second = asked.flatMap(({ request, generated }) =>
    generated.samples.map(({ text }) => ({ image: request.image!, prompt: text })),
  )
  return [...asked, ...(await ask(second, answers))]
}

interface Asked {
  readonly image: ImageSource
  readonly prompt: string
}

function requestsOf(
  { image, prompt }: Asked,
  { samples, tokens, temperature }: Sampling,
  { tree, seed, key, most = Infinity }: { tree: boolean; seed: number; key: string; most: number | undefined },
): GenerateRequest[] {
  const maxNewTokens = Math.min(tokens, most)
  const request = { key, image, prompt, samples, maxNewTokens, temperature, seed, rollout: true }
  if (tree) return [request]
  return Array.from({ length: samples }, (_, g) => ({
    ...request,
    key: `${key}/${g}`,
    image: { ...image, key: `${image.key}/${key}/${g}` },
    samples: 1,
  }))
}

/** The update of the rollouts with random advantages; with the tree, equal completions are one. */
export function policyGroups(rollouts: readonly Rollout[], seed: number): PolicyGroup[] {
  const random = new Random('advantages', seed)
  const groups = rollouts.map(({ request, generated }) => ({
    image: request.image,
    prompt: request.prompt,
    leaves: distinct(generated),
  }))
  const leaves = groups.flatMap((g) => g.leaves)
  const weights = tokenWeights(
    'dapo',
    leaves.map((l) => l.tokens.length),
    { counts_B: leaves.map((l) => l.count), maxCompletionLength: 1 },
  )
  let next = 0
  return groups.map(({ image, prompt, leaves }) => ({
    image,
    prompt,
    completions: leaves.map((leaf) => ({ ...leaf, advantage: random.uniform(-1, 1), weight: weights[next++]! })),
  }))
}

function distinct({ samples }: Generated) {
  const leaves = new Map<string, { tokens: readonly number[]; logprobs: readonly number[]; count: number }>()
  for (const { tokens, logprobs } of samples) {
    const key = tokens.join()
    leaves.set(key, { tokens, logprobs, count: (leaves.get(key)?.count ?? 0) + 1 })
  }
  return [...leaves.values()]
}

export const sampledTokens = (rollouts: readonly Rollout[]): number =>
  rollouts.reduce((n, { generated }) => n + generated.samples.reduce((m, s) => m + s.tokens.length, 0), 0)

/** Tokens when every sample is a row of its own, prompt included: how libraries without a tree count. */
export const rowTokens = (rollouts: readonly Rollout[]): number =>
  rollouts.reduce(
    (n, { generated }) => n + generated.samples.reduce((m, s) => m + s.tokens.length + generated.promptTokens, 0),
    0,
  )
