/** Folders of pictures: unlabelled ones to evolve on, and held-out sets of questions to measure with. */
import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { QUESTION_TYPES } from './grammar.ts'
import { makeQuestion } from './questions.ts'
import { Random } from './random.ts'
import { encodePng, pictureAt, renderScenes } from './render.ts'
import type { RenderOptions } from './render.ts'
import { randomScene } from './scene.ts'
import type { Scene } from './scene.ts'

/** Pictures rendered and written at a time: bounds memory. */
const CHUNK = 2048

/** Share of questions of an evaluation set that ask about something absent. */
const EVAL_ABSENT_SHARE = 0.12

/** `count` random scenes of a stream that `purpose` sets apart: equal seeds of two purposes share nothing. */
export function scenesFor(purpose: string, count: number, seed: number): Scene[] {
  return Array.from({ length: count }, (_, i) => randomScene(new Random(seed, 'scene', purpose, i)))
}

/** Render options of a purpose, likewise. */
export function looksFor(purpose: string, options: RenderOptions): RenderOptions {
  return { ...options, seed: new Random(options.seed, 'looks', purpose).uint32() }
}

/** Writes `count` unlabelled pictures, `000000.png` and on, into `dir`. Deterministic by seed. */
export async function writeImages(dir: string, options: RenderOptions & { readonly count: number }): Promise<void> {
  await writePictures(dir, scenesFor('images', options.count, options.seed), looksFor('images', options))
}

/**
 * Writes a held-out set: `images/000000.png` and on, and `eval.jsonl` with one question of each type that a picture
 * allows per line, `{"image", "question", "answer", "type"}`, paths relative to the file. Deterministic by seed.
 * @returns the path of `eval.jsonl` and the number of questions.
 */
export async function writeEvalSet(
  dir: string,
  options: RenderOptions & { readonly images: number },
): Promise<{ file: string; questions: number }> {
  const scenes = scenesFor('eval', options.images, options.seed)
  await writePictures(join(dir, 'images'), scenes, looksFor('eval', options))
  const lines = scenes.flatMap((scene, i) => {
    const random = new Random(options.seed, 'questions', i)
    return QUESTION_TYPES.flatMap((type) => {
      const made = makeQuestion(scene, random, { type, absentShare: EVAL_ABSENT_SHARE })
      if (!made) return []
      return JSON.stringify({ image: `images/${fileName(i)}`, question: made.question, answer: made.answer, type })
    })
  })
  const file = join(dir, 'eval.jsonl')
  await writeFile(file, lines.join('\n') + '\n')
  return { file, questions: lines.length }
}

async function writePictures(dir: string, scenes: readonly Scene[], options: RenderOptions): Promise<void> {
  await mkdir(dir, { recursive: true })
  for (let first = 0; first < scenes.length; first += CHUNK) {
    const chunk = scenes.slice(first, first + CHUNK)
    const pixels = await renderScenes(chunk, { ...options, first })
    await Promise.all(
      chunk.map(async (_, i) => writeFile(join(dir, fileName(first + i)), await encodePng(pictureAt(pixels, i)))),
    )
  }
}

function fileName(i: number): string {
  return `${String(i).padStart(6, '0')}.png`
}
