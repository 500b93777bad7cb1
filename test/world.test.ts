import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Template } from '@huggingface/jinja'
import { Tokenizer } from '@huggingface/tokenizers'
import fc from 'fast-check'
import sharp from 'sharp'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { z } from 'zod'
import { LABEL_CLASSES, makeCaption, patchLabels } from '../runners/world/captions.ts'
import { looksFor, scenesFor, writeEvalSet, writeImages } from '../runners/world/dataset.ts'
import { ANSWERS, parse, queriesOf, QUESTION_TYPES, say, truth } from '../runners/world/grammar.ts'
import { makeQuestion } from '../runners/world/questions.ts'
import { Random } from '../runners/world/random.ts'
import { pictureAt, renderScenes } from '../runners/world/render.ts'
import { COLORS, randomScene, SHAPES } from '../runners/world/scene.ts'
import type { Scene } from '../runners/world/scene.ts'
import { tinyCheckpointFiles } from '../runners/world/tiny-checkpoint.ts'
import { captionBatch, cleanPool, questionBatch } from '../runners/world/training-data.ts'
import { completionIds, IMAGE_PREFIX, IMAGE_TOKENS, promptIds, TOKENS } from '../runners/world/vocabulary.ts'

const scene: Scene = [
  { row: 'top', column: 'left', shape: 'star', color: 'red', size: 'big' },
  { row: 'top', column: 'right', shape: 'ring', color: 'red', size: 'small' },
  { row: 'bottom', column: 'right', shape: 'star', color: 'teal', size: 'small' },
]
const scenes = scenesFor('test', 2000, 1)

describe('random numbers', () => {
  it('are pinned: the same on every platform', () => {
    const random = new Random(7, 'scene', 3)
    expect([random.uint32(), random.uint32(), random.uint32()]).toEqual([10755434, 652965349, 2062900311])
  })

  it('differ between keys, and are uniform', () => {
    expect(new Random(1, 'a', 'b').uint32()).not.toBe(new Random(1, 'ab').uint32())
    const firsts = Array.from({ length: 20_000 }, (_, i) => new Random(5, i).float())
    const mean = firsts.reduce((a, b) => a + b) / firsts.length
    const tenth = firsts.filter((x) => x < 0.1).length / firsts.length
    expect(Math.abs(mean - 0.5)).toBeLessThan(0.01)
    expect(Math.abs(tenth - 0.1)).toBeLessThan(0.01)
  })
})

describe('scenes', () => {
  it('are balanced in number, shape and colour', () => {
    for (let n = 1; n <= 4; n++) expectShare(scenes.filter((s) => s.length === n).length, scenes.length, 1 / 4)
    const objects = scenes.flat()
    for (const shape of SHAPES)
      expectShare(
        count(objects, (o) => o.shape === shape),
        objects.length,
        1 / 7,
      )
    for (const color of COLORS)
      expectShare(
        count(objects, (o) => o.color === color),
        objects.length,
        1 / 12,
      )
  })

  it('have one object per cell', () => {
    for (const s of scenes) expect(new Set(s.map((o) => o.row + o.column)).size).toBe(s.length)
  })
})

describe('grammar', () => {
  it.each([
    ['what color is the ring?', 'color_of', 'red'],
    ['What  color is the ring ?', 'color_of', 'red'],
    ['which color is the star?', 'color_of', null],
    ['what is the color of the cross?', 'color_of', 'none'],
    ['which shape is teal?', 'shape_of', 'star'],
    ['what is the red object?', 'shape_of', null],
    ['what color is at the bottom right?', 'color_at', 'teal'],
    ['what shape is the bottom left object?', 'shape_at', 'none'],
    ['how many shapes do you see?', 'count_all', 'three'],
    ['how many red objects?', 'count_color', 'two'],
    ['how many crosses are there?', 'count_shape', 'zero'],
    ['is there an orange star?', 'exists', 'no'],
    ['do you see a teal star?', 'exists', 'yes'],
    ['is the ring to the left of the star?', 'relation', null],
    ['is the ring above the cross?', 'relation', 'none'],
    ['is the ring small or big?', 'size', 'small'],
    ['how big is the star?', 'size', null],
  ])('%s', (question, type, answer) => {
    expect(truth(question, scene)).toEqual({ type, answer })
  })

  it.each([
    'what color is the ring',
    'what color is the?',
    'is there a red?',
    'ask?',
    '?',
    '',
    'how many objects? red?',
  ])('is not of the grammar: %j', (question) => {
    expect(truth(question, scene)).toBeNull()
  })

  it('knows side by side from above', () => {
    const row: Scene = [scene[0]!, scene[1]!]
    expect(truth('is the star left of the ring?', row)?.answer).toBe('yes')
    expect(truth('is the star above the ring?', row)?.answer).toBe('no')
    expect(truth('is the ring lower than the star?', row)?.answer).toBe('no')
  })

  it('parses every query in every wording back, in at most ten words', () => {
    for (const query of QUESTION_TYPES.flatMap(queriesOf)) {
      const wordings = new Set(Array.from({ length: 12 }, (_, i) => say(query, new Random(i))))
      expect(wordings.size).toBeGreaterThan(1)
      for (const wording of wordings) {
        expect({ ...parse(wording) }).toMatchObject(query)
        expect(wording.split(' ').length).toBeLessThanOrEqual(10)
      }
    }
  })

  it('makes questions whose answer is the truth', () => {
    const property = fc.property(
      fc.nat(),
      fc.constantFrom(...QUESTION_TYPES, undefined),
      fc.float({ min: 0, max: 1 }),
      (seed, type, absentShare) => {
        const random = new Random(seed)
        const s = randomScene(random)
        const made = makeQuestion(s, random, { ...(type && { type }), absentShare })
        if (made) expect(truth(made.question, s)).toEqual({ type: made.type, answer: made.answer })
        else expect(type).toBeDefined()
      },
    )
    fc.assert(property, { numRuns: 2000 })
  })

  it('balances types, yes and no, and keeps the share of absent things', () => {
    const made = scenes.map((s, i) => makeQuestion(s, new Random(2, i))!)
    for (const type of QUESTION_TYPES)
      expectShare(
        count(made, (q) => q.type === type),
        made.length,
        0.1,
        0.04,
      )
    const exists = made.filter((q) => q.type === 'exists')
    expectShare(
      count(exists, (q) => q.answer === 'yes'),
      exists.length,
      0.5,
      0.1,
    )
    const sizes = made.filter((q) => q.type === 'size')
    expectShare(
      count(sizes, (q) => q.answer === 'none'),
      sizes.length,
      0.12,
      0.06,
    )
    expect(scenes.every((s, i) => makeQuestion(s, new Random(i), { absentShare: 0 })!.answer !== 'none')).toBe(true)
  })
})

describe('pictures', () => {
  it.each(['clean', 'shifted'] as const)('%s ones are deterministic and do not depend on the batch', async (domain) => {
    const some = scenes.slice(0, 20)
    const pixels = await renderScenes(some, { domain, seed: 4 })
    expect(pixels.length).toBe(20 * 64 * 64 * 3)
    const equals = async (part: Scene[], seed: number, first: number): Promise<boolean> =>
      Buffer.from(pixels.buffer, first * 12_288, part.length * 12_288).equals(
        await renderScenes(part, { domain, seed, first }),
      )
    expect(await equals(some, 4, 0)).toBe(true)
    expect(await equals(some.slice(7, 9), 4, 7)).toBe(true)
    expect(await equals(some, 5, 0)).toBe(false)
  })

  it('show each object in its cell, in its colour', async () => {
    const red: Scene = [{ row: 'bottom', column: 'left', shape: 'square', color: 'red', size: 'big' }]
    const [x, y] = [16, 48]
    for (const domain of ['clean', 'shifted'] as const) {
      const pixels = await renderScenes(
        Array.from({ length: 50 }, () => red),
        { domain, seed: 1 },
      )
      for (let i = 0; i < 50; i++) {
        const [r, g, b] = pictureAt(pixels, i).subarray((y * 64 + x) * 3) as unknown as [number, number, number]
        expect(r).toBeGreaterThan(1.3 * Math.max(g, b))
      }
    }
  })
})

describe('captions and labels', () => {
  it('say everything once', () => {
    for (let seed = 0; seed < 50; seed++) {
      const { words, weights } = makeCaption(scene, new Random(seed))
      expect(words.length).toBe(weights.length)
      for (const word of ['teal', 'ring', 'big']) expect(words.filter((w) => w === word)).toHaveLength(1)
      expect(words.filter((w) => w === 'star')).toHaveLength(2)
    }
  })

  it('label the patches of a cell with its object', () => {
    const labels = patchLabels([scene], 8)
    const at = (y: number, x: number): number[] => [...labels.subarray((y * 8 + x) * 3, (y * 8 + x) * 3 + 3)]
    expect(at(0, 3)).toEqual([1 + SHAPES.indexOf('star'), 1 + COLORS.indexOf('red'), 2])
    expect(at(7, 3)).toEqual([0, 0, 0])
    expect(at(4, 4)).toEqual([1 + SHAPES.indexOf('star'), 1 + COLORS.indexOf('teal'), 1])
    expect(patchLabels(scenes, 4).every((label, i) => label >= 0 && label < LABEL_CLASSES[i % 3]!)).toBe(true)
  })
})

describe('the tiny checkpoint', () => {
  const folder = join(import.meta.dirname, '../models/tiny')
  const read = async (name: string): Promise<string> => readFile(join(folder, name), 'utf8')
  let tokenizer: Tokenizer
  beforeAll(async () => {
    tokenizer = new Tokenizer(JSON.parse(await read('tokenizer.json')), JSON.parse(await read('tokenizer_config.json')))
  })

  it('has the files that the code describes', async () => {
    for (const [name, text] of Object.entries(tinyCheckpointFiles())) expect(await read(name), name).toBe(text)
  })

  it('tokenizes chat prompts as the training data does', async () => {
    const template = new Template(await read('chat_template.jinja'))
    const question = 'is the cross to the left of the star?'
    const content = [{ type: 'image' }, { type: 'text', text: question }]
    const text = template.render({ messages: [{ role: 'user', content }], add_generation_prompt: true })
    expect(text).toBe(`<|im_start|>User:<image>${question}<end_of_utterance>\nAssistant:`)
    const image = `<fake_token_around_image><global-img>${'<image>'.repeat(IMAGE_TOKENS)}<fake_token_around_image>`
    const ids = tokenizer.encode(text.replace('<image>', image), { add_special_tokens: false }).ids
    expect(ids).toEqual([...IMAGE_PREFIX, ...promptIds(question)])
  })

  it('knows every word and decodes what it encoded', () => {
    expect(TOKENS.length).toBeLessThanOrEqual(100)
    const answers = ANSWERS.flat().join(' ')
    expect(tokenizer.decode(completionIds(answers), { skip_special_tokens: true })).toBe(answers)
    for (const [i, s] of scenes.slice(0, 500).entries()) {
      const { question, answer } = makeQuestion(s, new Random(i))!
      const ids = completionIds(`${question} ${answer}`)
      expect(tokenizer.encode(`${question} ${answer}<end_of_utterance>`, { add_special_tokens: false }).ids).toEqual(
        ids,
      )
      expect(tokenizer.decode(ids, { skip_special_tokens: true })).toBe(`${question} ${answer}`)
    }
  })
})

describe('training data', () => {
  const options = { answers: 6, asks: 2, absentShare: { answers: 0.1, asks: 0.02 }, answerNoise: 0.1, askWeight: 0.3 }

  it('teaches both roles in the shape of the token tree', async () => {
    const pool = await cleanPool(10, 3)
    expect(pool.pixels.length).toBe(10 * 64 * 64 * 3)
    const batch = questionBatch(pool, [4, 9], new Random(1), options)
    expect(batch).toEqual(questionBatch(pool, [4, 9], new Random(1), options))
    expect(batch.map((b) => b.image)).toEqual([4, 9])
    for (const { prompts } of batch) {
      const completions = prompts.flatMap((p) => p.completions)
      expect(completions).toHaveLength(8)
      expect(prompts.find((p) => p.prompt.join() === promptIds('ask').join())?.completions).toHaveLength(2)
      for (const { tokens, weights } of completions) expect(weights.length).toBe(tokens.length)
    }
    const [captioned] = captionBatch(pool, [0], new Random(1), 4)
    expect(captioned!.prompts[0]!.completions).toHaveLength(4)
    expect(() => questionBatch(pool, [10], new Random(1), options)).toThrow('the pool has 10 pictures, none at 10')
  })

  it('has answers that are true but for the noise', () => {
    const pool = { scenes, pixels: new Uint8Array() }
    const batch = questionBatch(pool, [...scenes.keys()], new Random(1), { ...options, asks: 0, answerNoise: 0.2 })
    const words = (ids: readonly number[]): string => ids.map((id) => TOKENS[id]).join(' ')
    const checked = batch.flatMap(({ image, prompts }) =>
      prompts.flatMap(({ prompt, completions }) => {
        const { answer } = truth(words(prompt.slice(0, -2)), scenes[image]!)!
        return completions.map(({ tokens }) => words(tokens.slice(0, -1)) === answer)
      }),
    )
    // A random answer is sometimes the true one.
    expectShare(checked.filter((ok) => !ok).length, checked.length, 0.2 * 0.7, 0.03)
  })
})

describe('data sets', () => {
  let dir: string
  beforeAll(async () => {
    dir = await mkdtemp(join(tmpdir(), 'visplay-world-'))
  })
  afterAll(() => rm(dir, { recursive: true }))

  it('writes a held-out set that can be read, and the same one again', async () => {
    const options = { domain: 'shifted', images: 12, seed: 3 } as const
    const { file, questions } = await writeEvalSet(join(dir, 'a'), options)
    const again = await writeEvalSet(join(dir, 'b'), options)
    const text = await readFile(file, 'utf8')
    expect(await readFile(again.file, 'utf8')).toBe(text)
    const line = z.strictObject({
      image: z.string(),
      question: z.string(),
      answer: z.string(),
      type: z.enum(QUESTION_TYPES),
    })
    const rows = text
      .trim()
      .split('\n')
      .map((row) => line.parse(JSON.parse(row)))
    expect(rows).toHaveLength(questions)
    expect(questions).toBeGreaterThan(12 * 8)
    const evalScenes = scenesFor('eval', 12, 3)
    for (const { image, question, answer, type } of rows) {
      const picture = await sharp(join(dir, 'a', image)).metadata()
      expect([picture.width, picture.height, picture.channels]).toEqual([64, 64, 3])
      expect(truth(question, evalScenes[Number(/\d+/.exec(image)![0])]!)).toEqual({ type, answer })
    }
  })

  it('writes unlabelled pictures, losslessly', async () => {
    const options = { domain: 'shifted', seed: 8 } as const
    await writeImages(join(dir, 'images'), { ...options, count: 5 })
    expect(await readdir(join(dir, 'images'))).toEqual(Array.from({ length: 5 }, (_, i) => `00000${i}.png`))
    const expected = await renderScenes(scenesFor('images', 5, 8), looksFor('images', options))
    const pixels = await sharp(join(dir, 'images', '000003.png'))
      .raw()
      .toBuffer()
    expect(new Uint8Array(pixels)).toEqual(pictureAt(expected, 3).slice())
  })
})

function count<T>(list: readonly T[], test: (item: T) => boolean): number {
  return list.filter(test).length
}

function expectShare(part: number, whole: number, share: number, tolerance = 0.03): void {
  expect(Math.abs(part / whole - share)).toBeLessThan(tolerance)
}
