/** Accuracy on pictures that were never trained on, straight from the network: quick enough to run during training. */
import { generate } from '../../models/generate/generate.ts'
import type { HostTensor } from '../../models/tensor.ts'
import { packTrees } from '../../models/tree/pack.ts'
import type { Network } from '../../models/vlm/network.ts'
import { tilePasses } from '../../models/vlm/tiles.ts'
import { QUESTION_TYPES } from '../world/grammar.ts'
import { makeQuestion } from '../world/questions.ts'
import { Random } from '../world/random.ts'
import type { Domain } from '../world/render.ts'
import { type Pool, scenePool } from '../world/training-data.ts'
import { completionIds, IMAGE_PREFIX, IMAGE_TOKENS, promptIds } from '../world/vocabulary.ts'
import { pixelsOf } from './pixels.ts'

interface ProbeQuestion {
  readonly prompt: readonly number[]
  readonly answer: readonly number[]
}

export interface Probe {
  readonly pool: Pool
  readonly questions: readonly (readonly ProbeQuestion[])[]
}

export interface ProbeScore {
  readonly n: number
  /** Mean probability of the right answer: the exact expectation of accuracy at T = 1. */
  readonly mean1: number
  readonly greedy: number
}

const ABSENT_SHARE = 0.12
const IMAGES_PER_PASS = 64

/** One question of each feasible type about each of `images` pictures. */
export async function makeProbe(domain: Domain, images: number, seed: number): Promise<Probe> {
  const pool = await scenePool(images, { domain, seed })
  const random = new Random('probe', domain, seed)
  const questions = pool.scenes.map((scene) =>
    QUESTION_TYPES.flatMap((type) => {
      const made = makeQuestion(scene, random, { type, absentShare: ABSENT_SHARE })
      return made ? [{ prompt: promptIds(made.question), answer: completionIds(made.answer) }] : []
    }),
  )
  return { pool, questions }
}

/** Scores a network on a probe. */
export async function runProbe(network: Network, probe: Probe): Promise<ProbeScore> {
  const totals = { n: 0, mean1: 0, greedy: 0 }
  for (let at = 0; at < probe.questions.length; at += IMAGES_PER_PASS) {
    const part = probe.questions.slice(at, at + IMAGES_PER_PASS)
    const images = part.map((_, i) => at + i)
    await scorePart(network, part, pixelsOf(probe.pool, images), totals)
  }
  return { n: totals.n, mean1: totals.mean1 / totals.n, greedy: totals.greedy / totals.n }
}

async function scorePart(
  network: Network,
  part: readonly (readonly ProbeQuestion[])[],
  pixels: HostTensor<'float32'>,
  totals: { n: number; mean1: number; greedy: number },
): Promise<void> {
  const features = await network.features(tilePasses(pixels))
  const root = (i: number) => ({ prefix: IMAGE_PREFIX, firstFeature: i * IMAGE_TOKENS })
  const tree = packTrees(
    part.map((list, i) => ({ ...root(i), prompts: list.map((q) => ({ tokens: q.prompt, completions: [q.answer] })) })),
    network.context.architecture.imageTokenId,
  )
  const { logprobs } = await network.score(tree, { kind: 'given', features })
  const requests = part.map((list, i) => ({
    ...root(i),
    prompts: list.map((q) => ({ tokens: q.prompt, samples: 1, maxNewTokens: 3, temperature: 0, seed: 0, key: '' })),
  }))
  const sampled = (await generate(network.generation(), requests, features)).flat()
  part.flat().forEach(({ answer }, i) => {
    totals.n++
    totals.mean1 += Math.exp(logprobs[i]!.reduce((a, b) => a + b, 0))
    totals.greedy += sampled[i]![0]!.tokens.join() === answer.join() ? 1 : 0
  })
}
