/** Messages and pictures → token ids and pixels: SmolVLMProcessor and Idefics3Processor of transformers. */
import { join } from 'node:path'
import { z } from 'zod'
import { type ChatTemplate, loadChatTemplate } from '../../io/chat-template.ts'
import { CheckpointError } from '../../io/checkpoint-error.ts'
import type { RgbImage } from '../../io/image.ts'
import { readJsonIfPresent, reasonOf } from '../../io/json-file.ts'
import type { Filter } from '../../io/pil-resize.ts'
import { loadTokenizer, type Tokenizer } from '../../io/tokenizer.ts'
import { f32 } from '../../tensor.ts'
import type { Picture, PictureLayout, Processor, ReferenceInputs } from '../family.ts'
import { Prompts } from '../prompts.ts'
import { joinTiles } from '../tiles.ts'
import { checkTokenizer } from '../tokenizer-fit.ts'
import type { SmolVlmConfig } from './config.ts'
import { fakeToken, imagePromptString, imageToken } from './prompt.ts'
import { type ImageSettings, maxSide, mostTiles, tileImage } from './tiles.ts'

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
    made.prompts.splitPrompt('What is it?', { rows: 0, cols: 0, features: processor.image_seq_len })
  } catch (cause) {
    if (cause instanceof CheckpointError) throw cause
    const reason = `template and tokenizer make no prompt (${reasonOf(cause)}); use those of this model`
    throw new CheckpointError(reason, { file: dir, cause })
  }
  return made
}

/** Made by `loadSmolVlmProcessor`. */
export class SmolVlmProcessor implements Processor {
  readonly settings: ImageSettings
  /** Image tokens of one tile. */
  readonly imageSeqLen: number
  readonly tokenizer: Tokenizer
  readonly prompts: Prompts

  constructor(settings: ImageSettings, imageSeqLen: number, tokenizer: Tokenizer, template: ChatTemplate) {
    this.settings = settings
    this.imageSeqLen = imageSeqLen
    this.tokenizer = tokenizer
    const expand = (layout: PictureLayout) => imagePromptString(layout, imageSeqLen)
    this.prompts = new Prompts(tokenizer, template, { placeholder: imageToken, expand, last: fakeToken })
  }

  /** Pixels are the tiles, row by row, the global tile last: [tiles, 3, tile, tile]. */
  preparePicture(image: RgbImage): Picture {
    const most = mostTiles(image, this.settings)
    if (most * this.imageSeqLen > MOST_TOKENS) {
      const size = `${image.width}×${image.height}`
      throw new RangeError(`${size} pixels become ${most} tiles, too many for this model`)
    }
    const { rows, cols, tiles, uint8, pixelValues } = tileImage(image, this.settings)
    const { tile } = this.settings
    return {
      layout: { rows, cols, features: tiles * this.imageSeqLen },
      uint8,
      inputs: { pixels: f32(pixelValues, [tiles, 3, tile, tile]) },
    }
  }

  reference(pictures: readonly Picture[]): ReferenceInputs {
    const grids = {
      tile_rows: pictures.map((p) => p.layout.rows),
      tile_cols: pictures.map((p) => p.layout.cols),
    }
    if (pictures.length === 0) return { fields: grids, tensors: {}, pixels: null }
    const { dims, data } = joinTiles(pictures)
    const [tiles, , height, width] = dims as [number, number, number, number]
    // Tiles are square and filled, so that the model needs no mask.
    const mask = { shape: [1, tiles, height, width], all_ones: true }
    return {
      fields: { ...grids, pixel_attention_mask: mask },
      tensors: {},
      pixels: { shape: [1, ...dims], uint8: Buffer.concat(pictures.map((p) => p.uint8)), values: data },
    }
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
  const image = { token: imageToken, id: imageTokenId, key: 'image_token_id' }
  checkTokenizer(dir, tokenizer, { vocab: text.vocab, image, marks: [fakeToken] })
}
