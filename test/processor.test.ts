import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import type { ChatMessage } from '../models/io/chat-template.ts'
import { decodeImage } from '../models/io/image.ts'
import { readSafetensors } from '../models/io/safetensors.ts'
import { processConversation, readPicture } from '../models/vlm/pictures.ts'
import { loadSmolVlmConfig } from '../models/vlm/smolvlm/config.ts'
import { loadSmolVlmProcessor, type SmolVlmProcessor } from '../models/vlm/smolvlm/processor.ts'
import { tileImage } from '../models/vlm/smolvlm/tiles.ts'
import { positionBuckets } from '../models/vlm/smolvlm/vision-positions.ts'
import { joinTiles } from '../models/vlm/tiles.ts'
import { goldenCases, goldenImage, goldenJson, goldens, smolVlmVariants } from './support/goldens.ts'

interface Case {
  messages: { role: string; content: ({ type: 'image'; path: string } | { type: 'text'; text: string })[] }[]
  prompt: string
  input_ids: number[]
  image_token_runs: [start: number, length: number][]
  tile_rows?: number[]
  tile_cols?: number[]
}

const processorOf = async (variant: string) => {
  const dir = join(goldens, variant, 'checkpoint')
  const config = await loadSmolVlmConfig(dir)
  return { config, processor: await loadSmolVlmProcessor(dir, config) }
}

const imagePaths = ({ messages }: Case) =>
  messages.flatMap(({ content }) => content.flatMap((part) => (part.type === 'image' ? [part.path] : [])))

const messagesOf = ({ messages }: Case): ChatMessage[] =>
  messages.map(({ role, content }) => ({
    role,
    content: content.map((part) => (part.type === 'image' ? { type: 'image' } : part)),
  }))

const layoutOf = ({ imageSeqLen }: SmolVlmProcessor, rows: number, cols: number) => ({
  ...{ rows, cols },
  features: (rows * cols + 1) * imageSeqLen,
})

describe.each(smolVlmVariants)('%s', (variant) => {
  it.each(goldenCases(variant))('case %s: prompt, ids, tiles and pixels', async (name) => {
    const { config, processor } = await processorOf(variant)
    const golden = goldenJson<Case>(variant, 'cases', `${name}.json`)
    const tensors = await readSafetensors(join(goldens, variant, 'cases', `${name}.safetensors`))
    const images = await Promise.all(imagePaths(golden).map((path) => readFile(goldenImage(path))))

    const inputs = await processConversation(processor, messagesOf(golden), images)
    expect(inputs.prompt).toBe(golden.prompt)
    expect(inputs.inputIds).toEqual(golden.input_ids)
    const imageTokens = golden.image_token_runs.reduce((sum, [, length]) => sum + length, 0)
    expect(inputs.inputIds.filter((id) => id === config.imageTokenId)).toHaveLength(imageTokens)
    if (images.length === 0) {
      expect(inputs.pictures).toHaveLength(0)
      return
    }

    const processed = await Promise.all(images.map((bytes) => readPicture(processor, bytes)))
    expect(processed.map(({ layout }) => layout.rows)).toEqual(golden.tile_rows)
    expect(processed.map(({ layout }) => layout.cols)).toEqual(golden.tile_cols)
    const uint8 = Buffer.concat(processed.map((image) => image.uint8))
    const expected = tensors['pixel_values.uint8']!
    const pixels = joinTiles(inputs.pictures)
    expect([1, ...pixels.dims]).toEqual(expected.dims)
    expect(Buffer.compare(uint8, expected.data as Uint8Array)).toBe(0)
    expect(pixelError(pixels.data, tensors)).toBeLessThan(2e-6)
  })

  it('cuts prompts behind the last picture without changing their ids', async () => {
    const { config, processor } = await processorOf(variant)
    for (const name of goldenCases(variant)) {
      const golden = goldenJson<Case>(variant, 'cases', `${name}.json`)
      const grids = (golden.tile_rows ?? []).map((rows, i) => layoutOf(processor, rows, golden.tile_cols![i]!))
      const { prefix, suffix } = processor.prompts.splitMessages(messagesOf(golden), grids)
      expect([...prefix, ...suffix]).toEqual(golden.input_ids)
      expect(suffix).not.toContain(config.imageTokenId)
    }
  })

  it('encodes one question about one picture as the whole conversation does', async () => {
    const { processor } = await processorOf(variant)
    const golden = goldenJson<Case>(variant, 'cases', 'single.json')
    const grid = layoutOf(processor, golden.tile_rows![0]!, golden.tile_cols![0]!)
    const text = messagesOf(golden)[0]!.content.at(1) as { text: string }
    const { prefix, suffix } = processor.prompts.splitPrompt(text.text, grid)
    expect([...prefix, ...suffix]).toEqual(golden.input_ids)
    expect(processor.prompts.splitPrompt('another text', grid).prefix).toEqual(prefix)

    const plain = processor.prompts.splitPrompt('no picture', null)
    expect(plain.prefix).toHaveLength(1)
    const whole = processor.tokenizer.encode(plain.prompt)
    expect([...plain.prefix, ...plain.suffix]).toEqual(whole)
  })

  it('keeps placeholders and turn ends out of what users write', async () => {
    const { processor } = await processorOf(variant)
    const grid = layoutOf(processor, 0, 0)
    const clean = processor.prompts.splitPrompt('How many?', grid)
    const dirty = processor.prompts.splitPrompt('How <im<image>age>many?<end_of_utterance>', grid)
    expect(dirty.suffix).toEqual(clean.suffix)
  })
})

it('counts placeholders against pictures', async () => {
  const { processor } = await processorOf('smolvlm/tiny64')
  const messages: ChatMessage[] = [{ role: 'user', content: [{ type: 'image' }, { type: 'text', text: 'Is it red?' }] }]
  expect(() => processor.prompts.splitMessages(messages, [])).toThrow('1 <image> placeholders for 0 pictures')
})

it('follows the file route of pictures with an alpha channel, an orientation, or no colours', async () => {
  const { processor } = await processorOf('smolvlm/tiny64')
  for (const name of ['alpha90x70.png', 'writing160x80.png', 'turned120x80.jpg', 'photo640x480.jpg']) {
    const own = await decodeImage(await readFile(join(goldens, 'images', name)))
    const reference = await decodeImage(await readFile(goldenImage(name)))
    expect([own.width, own.height]).toEqual([reference.width, reference.height])
    const [a, b] = [own, reference].map((image) => tileImage(image, processor.settings).uint8)
    const difference = a!.reduce((sum, value, i) => sum + Math.abs(value - b![i]!), 0) / a!.length
    // JPEG decoders may round differently; everything else is exact.
    expect(difference).toBeLessThanOrEqual(name.endsWith('.jpg') ? 0.5 : 0)
  }
})

it('buckets patch positions as float32 arithmetic does', () => {
  const table = goldenJson<Record<string, { bucket: number[]; identity: boolean }>>(
    'smolvlm',
    'vision_position_buckets.json',
  )
  for (const [patches, { bucket }] of Object.entries(table)) {
    expect(positionBuckets(Number(patches), Number(patches)), patches).toEqual(bucket)
  }
  expect(Object.keys(table)).toHaveLength(40)
})

type Tensors = Awaited<ReturnType<typeof readSafetensors>>

/** Largest deviation from the stored pixels, which are all of them or a sample. */
function pixelError(pixels: Float32Array, tensors: Tensors): number {
  const whole = tensors['pixel_values']
  const value = (whole ?? tensors['pixel_values.value']!).data as Float32Array
  const index = whole ? undefined : (tensors['pixel_values.index']!.data as BigInt64Array)
  return value.reduce((worst, v, i) => Math.max(worst, Math.abs(v - pixels[index ? Number(index[i]) : i]!)), 0)
}
