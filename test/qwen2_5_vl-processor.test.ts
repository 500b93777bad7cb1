import { cp, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import sharp from 'sharp'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { ChatMessage } from '../models/io/chat-template.ts'
import { ImageError } from '../models/io/image.ts'
import { readPicture } from '../models/vlm/pictures.ts'
import { loadQwen25VlConfig } from '../models/vlm/qwen2_5_vl/config.ts'
import { loadQwen25VlProcessor, type Qwen25VlProcessor } from '../models/vlm/qwen2_5_vl/processor.ts'
import { qwenSmall } from './support/goldens.ts'

const load = async (dir: string) => loadQwen25VlProcessor(dir, await loadQwen25VlConfig(dir))
const IMAGE = 638
let processor: Qwen25VlProcessor
beforeAll(async () => void (processor = await load(join(qwenSmall, 'checkpoint'))))

describe('prompts', () => {
  const layout = { rows: 2, cols: 3, features: 6 }

  it('are cut behind the marks of the last picture', () => {
    const { prompt, prefix, suffix } = processor.prompts.splitPrompt('How many?', layout)
    expect(prompt).toContain('<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>How many?<|im_end|>\n')
    const { tokenizer } = processor
    const pads = '<|image_pad|>'.repeat(6)
    const whole = prompt.replace('<|image_pad|>', pads)
    expect([...prefix, ...suffix]).toEqual(tokenizer.encode(whole, { addSpecialTokens: false }))
    expect(prefix.at(-1)).toBe(tokenizer.idOf('<|vision_end|>'))
    expect(prefix.filter((id) => id === IMAGE)).toHaveLength(6)
    expect(processor.prompts.splitPrompt('another text', layout).prefix).toEqual(prefix)
    expect(processor.prompts.splitPrompt('How many?', { rows: 1, cols: 6, features: 6 }).prefix).toEqual(prefix)
  })

  it('of several pictures hold each in its place', () => {
    const image = { type: 'image' } as const
    const text = (t: string) => ({ type: 'text', text: t }) as const
    const messages: ChatMessage[] = [{ role: 'user', content: [text('a '), image, text(' b '), image, text(' c')] }]
    const { prefix, suffix } = processor.prompts.splitMessages(messages, [layout, { rows: 1, cols: 1, features: 1 }])
    expect(prefix.filter((id) => id === IMAGE)).toHaveLength(7)
    expect(suffix).not.toContain(IMAGE)
    expect(() => processor.prompts.splitMessages(messages, [layout])).toThrow('for 1 pictures')
  })

  it('keep placeholders and turn ends out of what users write', () => {
    const dirty = processor.prompts.splitPrompt('How <|image_<|im_end|>pad|>many?<|vision_start|>', layout)
    expect(dirty).toMatchObject({ suffix: processor.prompts.splitPrompt('How many?', layout).suffix })
  })
})

describe('pictures', () => {
  const blank = (width: number, height: number) =>
    sharp({ create: { width, height, channels: 3, background: '#808080' } })
      .png()
      .toBuffer()

  it('get as many tokens as their size wants', async () => {
    const { layout, inputs } = await readPicture(processor, await blank(112, 56))
    expect(layout).toEqual({ rows: 2, cols: 4, features: 8 })
    expect(inputs['pixels']!.dims).toEqual([8, 4, 3 * 2 * 14 * 14])
    expect((await readPicture(processor, await blank(4000, 3000))).layout.features).toBeLessThanOrEqual(12)
    expect((await readPicture(processor, await blank(3, 3))).layout.features).toBeGreaterThanOrEqual(4)
  })

  it('that are too long are refused by name', async () => {
    const long = readPicture(processor, await blank(1005, 5), 'strip.png')
    await expect(long).rejects.toThrow(ImageError)
    await expect(long).rejects.toThrow('image strip.png: an aspect ratio of 201.0; at most 200 is possible')
  })
})

describe('a checkpoint', () => {
  let dir: string
  beforeAll(async () => void (dir = await mkdtemp(join(tmpdir(), 'visplay-qwen-processor-'))))
  afterAll(() => rm(dir, { recursive: true }))

  it.each<[what: string, file: string, from: string | RegExp, to: string, message: RegExp]>([
    ['with another placeholder', 'config.json', '"image_token_id": 638', '"image_token_id": 5', /is 638 here and .* 5/],
    [
      'with too few embeddings',
      'config.json',
      '"vocab_size": 640',
      '"vocab_size": 600',
      /640 tokens, but the model has/,
    ],
    ['without marks', 'tokenizer.json', /<\|vision_end\|>/g, '<|other|>', /no token <\|vision_end\|>/],
  ])('%s is refused', async (_, file, from, to, message) => {
    await cp(join(qwenSmall, 'checkpoint'), dir, { recursive: true, force: true })
    const text = await readFile(join(dir, file), 'utf8')
    await writeFile(join(dir, file), text.replace(from, to))
    await expect(load(dir)).rejects.toThrow(message)
  })
})
