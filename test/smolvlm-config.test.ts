import { cp, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, it } from 'vitest'
import { openCheckpoint, readSafetensors, writeSafetensors } from '../models/io/safetensors.ts'
import { loadSmolVlmConfig } from '../models/vlm/smolvlm/config.ts'
import { loadSmolVlmProcessor } from '../models/vlm/smolvlm/processor.ts'
import { smolVlm } from '../models/vlm/smolvlm/family.ts'
import { expectedWeights } from '../models/vlm/smolvlm/weights.ts'
import { checkTensors, storedNames } from '../models/vlm/stored-weights.ts'
import { f32 } from '../models/tensor.ts'
import { goldens, smolVlmVariants } from './support/goldens.ts'

const checkpointOf = (variant: string) => join(goldens, variant, 'checkpoint')

let dir: string
beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'visplay-config-'))
  await cp(checkpointOf('smolvlm/tiny64'), dir, { recursive: true })
})
afterEach(() => rm(dir, { recursive: true }))

type Json = Record<string, unknown>
async function edit(name: string, change: (json: Json) => void): Promise<void> {
  const file = join(dir, name)
  const json = JSON.parse(await readFile(file, 'utf8')) as Json
  change(json)
  await writeFile(file, JSON.stringify(json))
}

it.each(smolVlmVariants)('lists exactly the weights of %s', async (variant) => {
  const config = await loadSmolVlmConfig(checkpointOf(variant))
  const checkpoint = await openCheckpoint(checkpointOf(variant))
  const expected = expectedWeights(config)
  expect(expected.map(({ name }) => name).toSorted()).toEqual(checkpoint.names().toSorted())
  expect(() => checkTensors(expectedWeights(config), checkpoint, storedNames(smolVlm, checkpoint))).not.toThrow()
  await checkpoint.close()
})

it('reads both layouts', async () => {
  const [tiny, split, idefics] = await Promise.all(smolVlmVariants.map((v) => loadSmolVlmConfig(checkpointOf(v))))
  expect(tiny).toEqual({
    modelType: 'smolvlm',
    text: {
      hiddenSize: 64,
      layers: 3,
      heads: 4,
      kvHeads: 2,
      headDim: 16,
      intermediate: 160,
      vocab: 640,
      rmsEps: 1e-5,
      ropeTheta: 100_000,
      tied: true,
    },
    vision: { hidden: 48, layers: 2, heads: 3, intermediate: 96, patch: 8, image: 64, layerNormEps: 1e-6 },
    scaleFactor: 2,
    imageTokenId: 638,
    eosTokenIds: [639],
    padTokenId: 599,
    dtype: 'float32',
  })
  expect(split).toMatchObject({ text: { ropeTheta: 273_768, tied: false }, scaleFactor: 4, dtype: 'float32' })
  expect(idefics).toMatchObject({ modelType: 'idefics3', text: { ropeTheta: 500_000 }, dtype: 'bfloat16' })
})

it('fills in the defaults of transformers', async () => {
  await writeFile(
    join(dir, 'config.json'),
    '{"model_type":"idefics3","text_config":{"vocab_size":9},"vision_config":null}',
  )
  await rm(join(dir, 'generation_config.json'))
  await expect(loadSmolVlmConfig(dir)).rejects.toThrow('impossible sizes: 7 patches a side (image 224, patch 32)')
  await writeFile(
    join(dir, 'config.json'),
    '{"model_type":"idefics3","vision_config":{"patch_size":16,"image_size":[512,512]},"eos_token_id":[7,8],"rope_scaling":null}',
  )
  expect(await loadSmolVlmConfig(dir)).toEqual({
    modelType: 'idefics3',
    text: {
      hiddenSize: 4096,
      layers: 32,
      heads: 32,
      kvHeads: 32,
      headDim: 128,
      intermediate: 11_008,
      vocab: 32_000,
      rmsEps: 1e-5,
      ropeTheta: 10_000,
      tied: false,
    },
    vision: { hidden: 1152, layers: 12, heads: 16, intermediate: 3072, patch: 16, image: 512, layerNormEps: 1e-6 },
    scaleFactor: 2,
    imageTokenId: 128_257,
    eosTokenIds: [7, 8],
    padTokenId: undefined,
    dtype: undefined,
  })
})

it.each<[what: string, change: (json: Json) => void, message: RegExp]>([
  ['another family', (c) => (c['model_type'] = 'llava'), /model_type "llava" .* \(supported: smolvlm, idefics3\)/],
  ['no model type', (c) => delete c['model_type'], /config.json: .*model_type/s],
  ['another activation', (c) => ((c['text_config'] as Json)['hidden_act'] = 'gelu'), /hidden_act/],
  [
    'scaled rotary embedding',
    (c) => ((c['text_config'] as Json)['rope_scaling'] = { rope_type: 'yarn' }),
    /rope_scaling/,
  ],
  [
    'heads that do not divide',
    (c) => ((c['text_config'] as Json)['num_key_value_heads'] = 3),
    /4 attention heads over 3/,
  ],
  ['a text where a number belongs', (c) => (c['scale_factor'] = '2'), /scale_factor/],
])('refuses %s', async (_, change, message) => {
  await edit('config.json', change)
  await expect(loadSmolVlmConfig(dir)).rejects.toThrow(message)
})

it('names missing and mis-shaped tensors', async () => {
  const whole = Object.entries(await readSafetensors(join(dir, 'model.safetensors')))
  const rest = Object.fromEntries(whole.filter(([name]) => name !== 'model.text_model.norm.weight'))
  const bias = 'model.vision_model.post_layernorm.bias'
  await writeSafetensors(join(dir, 'model.safetensors'), { ...rest, [bias]: f32([1, 2], [2]) })
  const checkpoint = await openCheckpoint(dir)
  const config = await loadSmolVlmConfig(dir)
  expect(() => checkTensors(expectedWeights(config), checkpoint, storedNames(smolVlm, checkpoint))).toThrow(
    /model.text_model.norm.weight is missing/,
  )
  expect(() => checkTensors(expectedWeights(config), checkpoint, storedNames(smolVlm, checkpoint))).toThrow(
    `${bias} is [2], config.json asks for [48]`,
  )
  await checkpoint.close()
})

it('refuses a processor that does not fit the model', async () => {
  const load = async () => loadSmolVlmProcessor(dir, await loadSmolVlmConfig(dir))
  await edit('processor_config.json', (c) => (c['image_seq_len'] = 64))
  await expect(load()).rejects.toThrow('image_seq_len is 64, but a tile of 64 pixels gives 16 image tokens')
  await edit('processor_config.json', (c) => (c['image_seq_len'] = 16))
  await edit('config.json', (c) => (c['image_token_id'] = 5))
  await expect(load()).rejects.toThrow('<image> is 638 here and image_token_id 5 in config.json')
  await edit('config.json', (c) => (c['image_token_id'] = 638))
  await edit('config.json', (c) => ((c['text_config'] as Json)['vocab_size'] = 600))
  await expect(load()).rejects.toThrow('640 tokens, but the model has 600')
  await edit('config.json', (c) => ((c['text_config'] as Json)['vocab_size'] = 640))
  await edit('processor_config.json', (c) => ((c['image_processor'] as Json)['resample'] = 0))
  await expect(load()).rejects.toThrow('only lanczos (1), bilinear (2) and bicubic (3) are supported')
  await rm(join(dir, 'processor_config.json'))
  await expect(load()).rejects.toThrow('no image settings')
})
