/** Labelled batches for pretraining the tiny model, made in memory, in the shape of the token tree. */
import { makeCaption } from './captions.ts'
import { looksFor, scenesFor } from './dataset.ts'
import { blur, makeQuestion } from './questions.ts'
import type { Random } from './random.ts'
import { renderScenes } from './render.ts'
import type { RenderOptions } from './render.ts'
import type { Scene } from './scene.ts'
import { completionIds, promptIds, ROLE_PROMPTS } from './vocabulary.ts'

/** `pixels`: uint8 [n, 64, 64, 3]; picture i shows scene i. */
export interface Pool {
  readonly scenes: readonly Scene[]
  readonly pixels: Uint8Array
}

/** A completion to learn; `weights[t]` is the weight of `tokens[t]` in the loss. The last token is the end token. */
export interface TaughtCompletion {
  readonly tokens: readonly number[]
  readonly weights: readonly number[]
}

/** Completions of one prompt (its tokens after the image prefix). */
export interface TaughtPrompt {
  readonly prompt: readonly number[]
  readonly completions: readonly TaughtCompletion[]
}

/** `image` is an index into the pool. */
export interface TaughtImage {
  readonly image: number
  readonly prompts: readonly TaughtPrompt[]
}

export interface QuestionBatchOptions {
  /** Questions to answer per image (Reasoner). */
  readonly answers: number
  /** Questions to write per image (Questioner). */
  readonly asks: number
  /** Shares of questions about something absent, by role. */
  readonly absentShare: { readonly answers: number; readonly asks: number }
  /** Share of answers replaced by a random one of the same category: a base that is less sure of itself. */
  readonly answerNoise: number
  /** Weight of each token that the Questioner writes; answers weigh 1. */
  readonly askWeight: number
}

/** Renders random scenes with their labels. Deterministic by seed, and disjoint from evaluation sets of equal seed. */
export async function scenePool(count: number, options: RenderOptions): Promise<Pool> {
  const scenes = scenesFor('pool', count, options.seed)
  return { scenes, pixels: await renderScenes(scenes, looksFor('pool', options)) }
}

/** The pool that the tiny model is pretrained on. */
export function cleanPool(count: number, seed: number): Promise<Pool> {
  return scenePool(count, { domain: 'clean', seed })
}

/** Questions in both roles about the given pictures of a pool. */
export function questionBatch(
  pool: Pool,
  images: readonly number[],
  random: Random,
  options: QuestionBatchOptions,
): TaughtImage[] {
  return images.map((image) => {
    const scene = sceneAt(pool, image)
    const make = (absentShare: number) => {
      // Every scene allows some question: its objects can be counted.
      const { question, answer } = makeQuestion(scene, random, { absentShare })!
      return { question, answer: random.chance(options.answerNoise) ? blur(answer, random) : answer }
    }
    const byPrompt = new Map<string, TaughtCompletion[]>()
    const teach = (prompt: string, completion: TaughtCompletion): void => {
      byPrompt.set(prompt, [...(byPrompt.get(prompt) ?? []), completion])
    }
    for (let i = 0; i < options.answers; i++) {
      const { question, answer } = make(options.absentShare.answers)
      teach(question, evenly(completionIds(answer), 1))
    }
    for (let i = 0; i < options.asks; i++) {
      const { question, answer } = make(options.absentShare.asks)
      teach(ROLE_PROMPTS.questioner, evenly(completionIds(`${question} ${answer}`), options.askWeight))
    }
    return { image, prompts: [...byPrompt].map(([text, completions]) => ({ prompt: promptIds(text), completions })) }
  })
}

/** `captions` captions of each of the given pictures of a pool. */
export function captionBatch(pool: Pool, images: readonly number[], random: Random, captions: number): TaughtImage[] {
  return images.map((image) => {
    const completions = Array.from({ length: captions }, () => {
      const { words, weights } = makeCaption(sceneAt(pool, image), random)
      return { tokens: completionIds(words.join(' ')), weights: [...weights, 1] }
    })
    return { image, prompts: [{ prompt: promptIds(ROLE_PROMPTS.captioner), completions }] }
  })
}

function evenly(tokens: readonly number[], weight: number): TaughtCompletion {
  return { tokens, weights: tokens.map(() => weight) }
}

function sceneAt(pool: Pool, image: number): Scene {
  const scene = pool.scenes[image]
  if (!scene) throw new RangeError(`the pool has ${pool.scenes.length} pictures, none at ${image}`)
  return scene
}
