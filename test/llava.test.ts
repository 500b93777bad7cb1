import fc from 'fast-check'
import { cp, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { decodeImage } from '../models/io/image.ts'
import { openCheckpoint } from '../models/io/safetensors.ts'
import { canonicalName } from '../models/vlm/llava/names.ts'
import { loadLlavaConfig } from '../models/vlm/llava/config.ts'
import { llava } from '../models/vlm/llava/family.ts'
import { padToSquare } from '../models/vlm/llava/image.ts'
import { bestPinpoint, featureOrder, fittedSize, NEWLINE, unpadded } from '../models/vlm/llava_next/anyres.ts'
import { llavaNext } from '../models/vlm/llava_next/family.ts'
import { readPicture } from '../models/vlm/pictures.ts'
import { familyOf } from '../models/vlm/registry.ts'
import { storedNames } from '../models/vlm/stored-weights.ts'
import { goldenImage, goldens } from './support/goldens.ts'

let dir: string
beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'visplay-llava-'))
})
afterEach(() => rm(dir, { recursive: true }))

type Json = Record<string, unknown>
async function edited(variant: string, file: string, change: (json: Json) => void): Promise<string> {
  await cp(join(goldens, variant, 'checkpoint'), dir, { recursive: true })
  const json = JSON.parse(await readFile(join(dir, file), 'utf8')) as Json
  change(json)
  await writeFile(join(dir, file), JSON.stringify(json))
  return dir
}

it.each(['llava/small-crop', 'llava/small-pad', 'llava_next/small-anyres'])(
  'knows exactly the weights of %s',
  async (variant) => {
    const folder = join(goldens, variant, 'checkpoint')
    const family = await familyOf(folder)
    const checkpoint = await openCheckpoint(folder)
    const names = storedNames(family, checkpoint)
    const { architecture } = await family.open(folder)
    expect([...names.keys()].toSorted()).toEqual(architecture.weights.map((w) => w.name).toSorted())
    await checkpoint.close()
  },
)

it.each([
  ['language_model.model.layers.0.mlp.up_proj.weight', 'model.language_model.layers.0.mlp.up_proj.weight'],
  ['model.language_model.layers.0.mlp.up_proj.weight', 'model.language_model.layers.0.mlp.up_proj.weight'],
  ['language_model.model.embed_tokens.weight', 'model.language_model.embed_tokens.weight'],
  ['language_model.lm_head.weight', 'lm_head.weight'],
  ['lm_head.weight', 'lm_head.weight'],
  ['vision_tower.vision_model.pre_layrnorm.bias', 'model.vision_tower.pre_layrnorm.bias'],
  ['vision_tower.pre_layrnorm.bias', 'model.vision_tower.pre_layrnorm.bias'],
  ['model.vision_tower.vision_model.pre_layrnorm.bias', 'model.vision_tower.pre_layrnorm.bias'],
  ['multi_modal_projector.linear_1.bias', 'model.multi_modal_projector.linear_1.bias'],
  ['image_newline', 'model.image_newline'],
  ['model.image_newline', 'model.image_newline'],
  ['something.else', 'something.else'],
])('%s is %s', (stored, canonical) => {
  expect(canonicalName(stored)).toBe(canonical)
})

it('reads text models of either kind, and their defaults', async () => {
  const plain = await edited('llava/small-crop', 'config.json', (c) => (c['text_config'] = { vocab_size: 640 }))
  expect((await loadLlavaConfig(plain)).text).toMatchObject({ kvHeads: 32, intermediate: 11_008, rmsEps: 1e-6 })
  const mistral = { model_type: 'mistral', vocab_size: 640, sliding_window: null, rope_theta: 1e6 }
  await edited('llava/small-crop', 'config.json', (c) => (c['text_config'] = mistral))
  expect((await loadLlavaConfig(dir)).text).toMatchObject({ kvHeads: 8, intermediate: 14_336, ropeTheta: 1e6 })
  await edited('llava/small-crop', 'config.json', (c) => (c['vision_config'] = null))
  expect((await loadLlavaConfig(dir)).vision).toMatchObject({ image: 336, patch: 14, layers: 24, usedLayers: 23 })
})

it.each<[what: string, file: string, change: (json: Json) => void, message: RegExp]>([
  [
    'features with the class token',
    'config.json',
    (c) => (c['vision_feature_select_strategy'] = 'full'),
    /select_strat/,
  ],
  ['features of several layers', 'config.json', (c) => (c['vision_feature_layer'] = [-2, -5]), /vision_feature_layer/],
  ['a layer that is not there', 'config.json', (c) => (c['vision_feature_layer'] = -9), /a tower of 3 layers/],
  ['another tower', 'config.json', (c) => ((c['vision_config'] as Json)['model_type'] = 'siglip'), /vision_config/],
  [
    'a sliding window',
    'config.json',
    (c) => (c['text_config'] = { model_type: 'mistral', sliding_window: 4096 }),
    /sliding_window/,
  ],
  ['another placeholder', 'config.json', (c) => (c['image_token_index'] = 5), /image_token_index 5/],
  ['another patch size', 'processor_config.json', (c) => (c['patch_size'] = 14), /patch_size is 14, but 4/],
  ['a crop of another size', 'preprocessor_config.json', (c) => (c['crop_size'] = 56), /cropped to 28 × 28/],
])('refuses %s', async (_, file, change, message) => {
  const folder = await edited('llava/small-crop', file, change)
  await expect(llava.open(folder)).rejects.toThrow(message)
})

it('refuses pinpoints that differ between model and processor', async () => {
  const change = (c: Json) => (c['image_grid_pinpoints'] = [[42, 84]])
  const folder = await edited('llava_next/small-anyres', 'config.json', change)
  await expect(llavaNext.open(folder)).rejects.toThrow(/image_grid_pinpoints/)
})

it('names a picture that no pinpoint can show', async () => {
  const { processor } = await llavaNext.open(join(goldens, 'llava_next/small-anyres/checkpoint'))
  const sharp = (await import('sharp')).default
  const line = await sharp({ create: { width: 2000, height: 1, channels: 3, background: 'red' } })
    .png()
    .toBuffer()
  await expect(readPicture(processor, line, 'line.png')).rejects.toThrow(/^image line.png: .*2000×1/)
})

it('decodes a run of bytes as a whole, or every byte as U+FFFD', async () => {
  const { tokenizer } = (await llava.open(join(goldens, 'llava/small-crop/checkpoint'))).processor
  const decode = (...tokens: string[]) =>
    tokenizer.decode(
      tokens.map((token) => tokenizer.idOf(token)!),
      { skipSpecialTokens: false },
    )
  expect(decode('<0xC3>', '<0xA9>', '2')).toBe('é2')
  expect(decode('<0x41>', '<0xC3>', '2', '<0x41>')).toBe('\uFFFD\uFFFD2A')
})

it('pads a picture in the middle', async () => {
  const image = await decodeImage(await readFile(goldenImage('tall37x211.png')))
  const { width, height, data } = padToSquare(image, [1, 2, 3])
  expect([width, height]).toEqual([211, 211])
  const at = (x: number, y: number) => [...data.subarray((y * width + x) * 3, (y * width + x + 1) * 3)]
  expect([at(0, 0), at(86, 100), at(124, 100)]).toEqual([
    [1, 2, 3],
    [1, 2, 3],
    [1, 2, 3],
  ])
  expect(at(87, 50)).toEqual([...image.data.subarray(50 * 37 * 3, 50 * 37 * 3 + 3)])
})

describe('any resolution', () => {
  const PINPOINTS = [
    [336, 672],
    [672, 336],
    [672, 672],
    [1008, 336],
    [336, 1008],
  ] as const
  const size = fc.tuple(fc.integer({ min: 8, max: 3000 }), fc.integer({ min: 8, max: 3000 }))

  it('fits a picture into its pinpoint along one side', () => {
    fc.assert(
      fc.property(size, (own) => {
        const target = bestPinpoint(own, PINPOINTS)
        const fitted = fittedSize(own, target)
        expect(fitted[0] <= target[0] && fitted[1] <= target[1]).toBe(true)
        expect(fitted[0] === target[0] || fitted[1] === target[1]).toBe(true)
      }),
    )
  })

  it('keeps each feature of the picture once, row by row', () => {
    fc.assert(
      fc.property(size, (own) => {
        const target = bestPinpoint(own, PINPOINTS)
        const [rows, cols] = [target[0] / 336, target[1] / 336]
        const side = 24
        const order = featureOrder(own, [rows, cols], side)
        const { height, width, top, left } = unpadded(own, [rows * side, cols * side])
        expect(order.length).toBe(side * side + height * (width + 1))
        expect([...order.subarray(0, side * side)]).toEqual([...Array(side * side).keys()])
        // Where a feature stands in the whole grid, from its tile and patch.
        const placed = [...order.subarray(side * side)].map((at) => {
          if (at === NEWLINE) return null
          const [tile, patch] = [Math.floor(at / side ** 2) - 1, at % side ** 2]
          const y = Math.floor(tile / cols) * side + Math.floor(patch / side)
          return y * cols * side + (tile % cols) * side + (patch % side)
        })
        const expected = Array.from({ length: height }, (_, y) => [
          ...Array.from({ length: width }, (_, x) => (top + y) * cols * side + left + x),
          null,
        ]).flat()
        expect(placed).toEqual(expected)
      }),
      { numRuns: 30 },
    )
  })
})
