import { cp, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { loadQwen25VlConfig } from '../models/vlm/qwen2_5_vl/config.ts'
import { loadImageSettings } from '../models/vlm/qwen2_5_vl/image-settings.ts'
import { qwenSmall } from './support/goldens.ts'

let dir: string
beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'visplay-qwen-'))
  await cp(join(qwenSmall, 'checkpoint'), dir, { recursive: true })
})
afterEach(() => rm(dir, { recursive: true }))

type Json = Record<string, unknown>
async function edit(name: string, change: (json: Json) => void): Promise<void> {
  const file = join(dir, name)
  const json = JSON.parse(await readFile(file, 'utf8')) as Json
  change(json)
  await writeFile(file, JSON.stringify(json))
}

const small = {
  text: {
    ...{ hiddenSize: 32, layers: 2, heads: 2, kvHeads: 1, headDim: 16, intermediate: 48, vocab: 640 },
    ...{ rmsEps: 1e-6, ropeTheta: 1_000_000, mropeSection: [2, 3, 3], tied: true },
  },
  vision: {
    ...{ hidden: 32, layers: 2, heads: 2, intermediate: 48, patch: 14, temporalPatch: 2, merge: 2, window: 56 },
    fullAttention: [1],
  },
  ...{ imageTokenId: 638, eosTokenIds: [634], padTokenId: 632, dtype: 'bfloat16' },
}

describe('configuration', () => {
  it('in the flat layout of the hub', async () => {
    expect(await loadQwen25VlConfig(dir)).toEqual(small)
  })

  it('in the layout of transformers 5', async () => {
    await edit('config.json', (c) => {
      const { vision_config: vision, model_type: type, torch_dtype: dtype, tie_word_embeddings: tied, ...text } = c
      for (const key of Object.keys(c)) Reflect.deleteProperty(c, key)
      delete text['rope_theta']
      delete text['rope_scaling']
      const rope = { rope_type: 'default', rope_theta: 640_000, mrope_section: [4, 2, 2] }
      Object.assign(c, { model_type: type, dtype, image_token_id: 638, vision_config: vision })
      c['text_config'] = { ...text, tie_word_embeddings: tied, rope_parameters: rope, image_token_id: undefined }
    })
    const text = { ...small.text, ropeTheta: 640_000, mropeSection: [4, 2, 2] }
    expect(await loadQwen25VlConfig(dir)).toEqual({ ...small, text })
  })

  it('of Qwen2.5-VL-3B-Instruct', async () => {
    const published = {
      ...{ model_type: 'qwen2_5_vl', hidden_size: 2048, intermediate_size: 11_008, max_window_layers: 70 },
      ...{ num_attention_heads: 16, num_hidden_layers: 36, num_key_value_heads: 2, rms_norm_eps: 1e-6 },
      ...{ rope_theta: 1_000_000, rope_scaling: { type: 'mrope', mrope_section: [16, 24, 24] }, vocab_size: 151_936 },
      ...{ sliding_window: 32_768, use_sliding_window: false, tie_word_embeddings: true, torch_dtype: 'bfloat16' },
      vision_config: {
        ...{ depth: 32, hidden_act: 'silu', hidden_size: 1280, intermediate_size: 3420, num_heads: 16, in_chans: 3 },
        ...{ out_hidden_size: 2048, patch_size: 14, spatial_merge_size: 2, spatial_patch_size: 14, window_size: 112 },
        ...{ fullatt_block_indexes: [7, 15, 23, 31], tokens_per_second: 2, temporal_patch_size: 2 },
      },
    }
    await writeFile(join(dir, 'config.json'), JSON.stringify(published))
    await rm(join(dir, 'generation_config.json'))
    expect(await loadQwen25VlConfig(dir)).toMatchObject({
      text: { headDim: 128, kvHeads: 2, tied: true, mropeSection: [16, 24, 24] },
      vision: { hidden: 1280, heads: 16, window: 112, fullAttention: [7, 15, 23, 31] },
      ...{ imageTokenId: 151_655, eosTokenIds: [], padTokenId: undefined },
    })
  })

  it.each<[what: string, change: (json: Json) => void, message: RegExp]>([
    ['another family', (c) => (c['model_type'] = 'qwen2_vl'), /model_type "qwen2_vl" .* \(supported: qwen2_5_vl\)/],
    ['another activation', (c) => ((c['vision_config'] as Json)['hidden_act'] = 'gelu'), /vision_config.hidden_act/],
    ['sliding windows of text', (c) => (c['use_sliding_window'] = true), /use_sliding_window/],
    ['other rotary scaling', (c) => (c['rope_scaling'] = { type: 'yarn' }), /rope_scaling.type/],
    ['heads that do not divide', (c) => (c['num_key_value_heads'] = 3), /2 attention heads over 3 key\/value heads/],
    [
      'sections that do not fill a head',
      (c) => (c['rope_scaling'] = { type: 'mrope', mrope_section: [2, 3, 4] }),
      /impossible sizes: mrope_section \[2, 3, 4\] for a head_dim of 16/,
    ],
    [
      'a tower for another text model',
      (c) => ((c['vision_config'] as Json)['out_hidden_size'] = 64),
      /out_hidden_size 64 into a text model of 32/,
    ],
    [
      'windows smaller than an image token',
      (c) => ((c['vision_config'] as Json)['window_size'] = 14),
      /windows of 14 pixels, an image token has 28/,
    ],
  ])('refuses %s', async (_, change, message) => {
    await edit('config.json', change)
    await expect(loadQwen25VlConfig(dir)).rejects.toThrow(message)
  })
})

describe('image settings', () => {
  const load = async () => loadImageSettings(dir, (await loadQwen25VlConfig(dir)).vision)

  it('of the hub', async () => {
    const { normalize, ...rest } = await load()
    expect(rest).toEqual({
      bounds: { minPixels: 56 * 56, maxPixels: 12 * 28 * 28 },
      ...{ filter: 'bicubic', rescale: 1 / 255, patch: 14, temporalPatch: 2, merge: 2 },
    })
    expect(normalize!.mean).toEqual([0.48145466, 0.4578275, 0.40821073])
  })

  it('of transformers 5, which win', async () => {
    const image = { size: { shortest_edge: 1000, longest_edge: 2000 }, do_normalize: false, resample: null }
    await writeFile(join(dir, 'processor_config.json'), JSON.stringify({ image_processor: image }))
    expect(await load()).toMatchObject({
      ...{ bounds: { minPixels: 1000, maxPixels: 2000 }, filter: 'bicubic', normalize: null },
    })
  })

  it.each<[what: string, change: (json: Json) => void, message: RegExp]>([
    ['another filter', (c) => (c['resample'] = 0), /only lanczos \(1\), bilinear \(2\) and bicubic \(3\)/],
    ['patches of another size', (c) => (c['patch_size'] = 16), /patch_size is 16 here and 14 in config.json/],
    ['no size between the bounds', (c) => (c['min_pixels'] = 100_000), /at least 100000 pixels but at most 9408/],
  ])('refuses %s', async (_, change, message) => {
    await edit('preprocessor_config.json', change)
    await expect(load()).rejects.toThrow(message)
  })

  it('must be there', async () => {
    await rm(join(dir, 'preprocessor_config.json'))
    await expect(load()).rejects.toThrow('no image settings')
  })
})
