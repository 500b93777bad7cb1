/** Messages and pictures → token ids and pixels: SmolVLMProcessor and Idefics3Processor of transformers. */
import { LRUCache } from 'lru-cache'
import { join } from 'node:path'
import { z } from 'zod'
import { loadChatTemplate, renderChat, type ChatMessage, type ChatTemplate } from '../../io/chat-template.ts'
import { CheckpointError } from '../../io/checkpoint-error.ts'
import { decodeImage, ImageError } from '../../io/image.ts'
import { readJsonIfPresent, reasonOf } from '../../io/json-file.ts'
import type { Filter } from '../../io/pil-resize.ts'
import { loadTokenizer, type Tokenizer } from '../../io/tokenizer.ts'
import type { SmolVlmConfig } from './config.ts'
import { expandImages, fakeToken, imageToken, plainText, PromptError } from './prompt.ts'
import { maxSide, mostTiles, tileImage, type ImageSettings, type ProcessedImage, type TileGrid } from './tiles.ts'

/** Token ids of a prompt, cut so that all prompts about one picture share `prefix`. */
export interface SplitPrompt {
  /** The rendered chat, pictures as `<image>`. */
  readonly prompt: string
  /** Up to and including the closing token of the last picture; without pictures, the first token. */
  readonly prefix: readonly number[]
  readonly suffix: readonly number[]
}

/** Everything the model takes for one conversation. `pixelValues` is [tiles, 3, height, width], pictures in order. */
export interface ModelInputs {
  readonly prompt: string
  readonly inputIds: readonly number[]
  readonly pixelValues: Float32Array
  readonly tiles: number
  readonly height: number
  readonly width: number
}

const filters: Readonly<Record<number, Filter>> = { 1: 'lanczos', 2: 'bilinear', 3: 'bicubic' }

const half = [0.5, 0.5, 0.5]
const channels = z.union([z.array(z.number()).length(3), z.number().transform((value) => [value, value, value])])
const side = z
  .int()
  .positive()
  .max(2 ** 16)
/** Positions of the text model: what one picture may take at most. */
const MOST_TOKENS = 8192
/** Explicit null means the default, as in transformers. */
const dropNulls = (value: unknown) =>
  typeof value === 'object' && value !== null
    ? Object.fromEntries(Object.entries(value).filter(([, field]) => field !== null))
    : value
const imageFields = z.looseObject({
  do_resize: z.boolean().default(true),
  size: z.union([z.looseObject({ longest_edge: side }), z.looseObject({ height: side, width: side })]).optional(),
  max_image_size: z.looseObject({ longest_edge: side }).default({ longest_edge: 364 }),
  do_image_splitting: z.boolean().default(true),
  resample: z
    .int()
    .default(1)
    .refine((code) => code in filters, { error: 'only lanczos (1), bilinear (2) and bicubic (3) are supported' }),
  do_rescale: z.boolean().default(true),
  rescale_factor: z.number().default(1 / 255),
  do_normalize: z.boolean().default(true),
  image_mean: channels.default(half),
  image_std: channels.refine((std) => std.every((value) => value !== 0), 'not 0').default(half),
})
const imageSchema = z.preprocess(dropNulls, imageFields)
const processorSchema = z.looseObject({ image_seq_len: side.default(169), image_processor: imageSchema.optional() })

/** Load the tokenizer, chat template and image settings of a checkpoint folder; they must fit the model's config. */
export async function loadSmolVlmProcessor(dir: string, config: SmolVlmConfig): Promise<SmolVlmProcessor> {
  const file = join(dir, 'processor_config.json')
  const processor = (await readJsonIfPresent(file, processorSchema)) ?? processorSchema.parse({})
  const hub = await readJsonIfPresent(join(dir, 'preprocessor_config.json'), imageSchema)
  const image = processor.image_processor ?? hub
  if (!image) {
    const reason = 'no image settings (preprocessor_config.json or processor_config.json); download all files'
    throw new CheckpointError(reason, { file: dir })
  }
  const settings = imageSettings(image)
  const tokenizer = await loadTokenizer(dir)
  checkFit(dir, config, settings, processor.image_seq_len, tokenizer)
  const made = new SmolVlmProcessor(settings, processor.image_seq_len, tokenizer, await loadChatTemplate(dir))
  try {
    made.splitPrompt('What is it?', { rows: 0, cols: 0 })
  } catch (cause) {
    if (cause instanceof CheckpointError) throw cause
    const reason = `template and tokenizer make no prompt (${reasonOf(cause)}); use those of this model`
    throw new CheckpointError(reason, { file: dir, cause })
  }
  return made
}

/** Made by `loadSmolVlmProcessor`. */
export class SmolVlmProcessor {
  readonly settings: ImageSettings
  /** Image tokens of one tile. */
  readonly imageSeqLen: number
  readonly tokenizer: Tokenizer
  readonly #template: ChatTemplate
  /** Ids of the few distinct prompt heads (one per tile grid), so that only the text is encoded each time. */
  readonly #heads = new Map<string, readonly number[]>()
  /** Prompts seen: a step asks for each several times, to sample and to train. */
  readonly #prompts = new LRUCache<string, SplitPrompt>({ max: 4096 })

  constructor(settings: ImageSettings, imageSeqLen: number, tokenizer: Tokenizer, template: ChatTemplate) {
    this.settings = settings
    this.imageSeqLen = imageSeqLen
    this.tokenizer = tokenizer
    this.#template = template
  }

  /** Decode and tile one encoded picture. Throws an `ImageError` that carries `name`. */
  async processImage(bytes: Uint8Array, name?: string): Promise<ProcessedImage> {
    const image = await decodeImage(bytes, name === undefined ? {} : { name })
    const tiles = mostTiles(image, this.settings)
    if (tiles * this.imageSeqLen <= MOST_TOKENS) return tileImage(image, this.settings)
    const size = `${image.width}×${image.height}`
    throw new ImageError(name ?? 'of unknown name', `${size} pixels become ${tiles} tiles, too many for this model`)
  }

  /** The prompt of one user turn, the picture first; names of special tokens are removed from `text`. */
  splitPrompt(text: string, grid: TileGrid | null): SplitPrompt {
    const key = `${grid ? `${grid.rows}x${grid.cols}` : 'text'} ${text}`
    let split = this.#prompts.get(key)
    if (!split) {
      split = this.#splitTurn(text, grid)
      this.#prompts.set(key, split)
    }
    return split
  }

  #splitTurn(text: string, grid: TileGrid | null): SplitPrompt {
    const part = { type: 'text', text: plainText(text, this.tokenizer.specialTokens) } as const
    const content = grid ? [{ type: 'image' } as const, part] : [part]
    return this.splitMessages([{ role: 'user', content }], grid ? [grid] : [])
  }

  /** The prompt of a conversation, the generation prompt added; `grids` are those of its pictures in order. */
  splitMessages(messages: readonly ChatMessage[], grids: readonly TileGrid[]): SplitPrompt {
    const prompt = renderChat(this.#template, messages, { addGenerationPrompt: true, variables: this.#variables() })
    const { head, tail } = expandImages(prompt, grids, this.imageSeqLen)
    if (head === '') {
      const ids = this.#encodeStart(tail)
      return { prompt, prefix: ids.slice(0, 1), suffix: ids.slice(1) }
    }
    return { prompt, prefix: this.#encodeHead(head), suffix: this.#encodeTail(tail) }
  }

  /** Ids and pixels of a whole conversation; `images` are the encoded pictures in order. */
  async process(messages: readonly ChatMessage[], images: readonly Uint8Array[]): Promise<ModelInputs> {
    const processed = await Promise.all(images.map((bytes) => this.processImage(bytes)))
    const { prompt, prefix, suffix } = this.splitMessages(messages, processed)
    const pixelValues = new Float32Array(processed.reduce((sum, { pixelValues: p }) => sum + p.length, 0))
    let at = 0
    for (const { pixelValues: one } of processed) {
      pixelValues.set(one, at)
      at += one.length
    }
    const tiles = processed.reduce((sum, image) => sum + image.tiles, 0)
    const { tile } = this.settings
    return { prompt, inputIds: [...prefix, ...suffix], pixelValues, tiles, height: tile, width: tile }
  }

  #variables(): Record<string, string> {
    const { bosToken, eosToken } = this.tokenizer
    return { ...(bosToken && { bos_token: bosToken }), ...(eosToken && { eos_token: eosToken }) }
  }

  /** The begin token is added unless the template already wrote it, as transformers' `apply_chat_template` decides. */
  #encodeStart(text: string): number[] {
    const { bosToken } = this.tokenizer
    return this.tokenizer.encode(text, { addSpecialTokens: !(bosToken && text.startsWith(bosToken)) })
  }

  #encodeHead(head: string): readonly number[] {
    let ids = this.#heads.get(head)
    if (!ids) {
      ids = this.#encodeStart(head)
      if (ids.at(-1) !== this.tokenizer.idOf(fakeToken)) {
        throw new PromptError('the tokenizer adds tokens behind the picture; prompts cannot be shared')
      }
      if (this.#heads.size >= 64) this.#heads.clear()
      this.#heads.set(head, ids)
    }
    return ids
  }

  /** Text behind a picture is encoded behind its closing token: a tokenizer may treat the start of a text differently. */
  #encodeTail(tail: string): number[] {
    const ids = this.tokenizer.encode(fakeToken + tail, { addSpecialTokens: false })
    if (ids[0] !== this.tokenizer.idOf(fakeToken))
      throw new PromptError('the tokenizer merges text into special tokens')
    return ids.slice(1)
  }
}

function imageSettings(image: z.output<typeof imageSchema>): ImageSettings {
  const { size = { longest_edge: 4 * 364 } } = image
  const first =
    'longest_edge' in size ? { longestEdge: size.longest_edge as number } : { height: size.height, width: size.width }
  return {
    size: image.do_resize ? first : null,
    tile: image.max_image_size.longest_edge,
    split: image.do_image_splitting,
    filter: filters[image.resample]!,
    rescale: image.do_rescale ? image.rescale_factor : null,
    normalize: image.do_normalize ? { mean: image.image_mean, std: image.image_std } : null,
  }
}

/** The processor's tokens per tile must be what the connector makes of a tile, under the id that the model looks for. */
function checkFit(
  dir: string,
  { text, vision, scaleFactor, imageTokenId }: SmolVlmConfig,
  settings: ImageSettings,
  imageSeqLen: number,
  tokenizer: Tokenizer,
): void {
  const { tile } = settings
  const made = (Math.floor(tile / vision.patch) / scaleFactor) ** 2
  if (made !== imageSeqLen) {
    const reason = `image_seq_len is ${imageSeqLen}, but a tile of ${tile} pixels gives ${made} image tokens`
    throw new CheckpointError(reason, { file: join(dir, 'processor_config.json') })
  }
  const tiles = settings.size === null ? 1 : mostTiles({ width: maxSide, height: maxSide }, settings)
  if (tiles * imageSeqLen > MOST_TOKENS) {
    const reason = `a picture would become ${tiles} tiles of ${imageSeqLen} tokens, more than ${MOST_TOKENS} tokens`
    throw new CheckpointError(`${reason}; lower size.longest_edge`, { file: join(dir, 'processor_config.json') })
  }
  if (tokenizer.vocabSize > text.vocab) {
    const reason = `${tokenizer.vocabSize} tokens, but the model has ${text.vocab} (vocab_size in config.json); use the model's own tokenizer`
    throw new CheckpointError(reason, { file: join(dir, 'tokenizer.json') })
  }
  for (const token of [imageToken, fakeToken]) {
    if (tokenizer.idOf(token) === undefined) {
      throw new CheckpointError(`no token ${token}; is it this model's tokenizer?`, {
        file: join(dir, 'tokenizer.json'),
      })
    }
  }
  if (tokenizer.idOf(imageToken) !== imageTokenId) {
    const reason = `${imageToken} is ${tokenizer.idOf(imageToken)} here and image_token_id ${imageTokenId} in config.json`
    throw new CheckpointError(reason, { file: join(dir, 'tokenizer.json') })
  }
}
