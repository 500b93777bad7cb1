/** Messages and pictures → token ids and pixels: LlavaProcessor of transformers. */
import { type ChatTemplate, loadChatTemplate } from '../../io/chat-template.ts'
import { CheckpointError } from '../../io/checkpoint-error.ts'
import type { RgbImage } from '../../io/image.ts'
import { normalise, writePlanes } from '../../io/pixels.ts'
import { loadTokenizer, type Tokenizer } from '../../io/tokenizer.ts'
import { f32 } from '../../tensor.ts'
import type { Picture, PictureLayout, Processor, ReferenceInputs } from '../family.ts'
import { Prompts } from '../prompts.ts'
import { joinTiles } from '../tiles.ts'
import { checkTokenizer } from '../tokenizer-fit.ts'
import { patchesOf } from './clip.ts'
import type { LlavaConfig } from './config.ts'
import { prepareImage } from './image.ts'
import { type LlavaImageSettings, loadImageSettings } from './image-settings.ts'

const IMAGE_TOKEN = '<image>'

/** Load the tokenizer, chat template and image settings of a checkpoint folder; they must fit the model's config. */
export async function loadLlavaProcessor(dir: string, config: LlavaConfig): Promise<LlavaProcessor> {
  const { patch, image } = config.vision
  const settings = await loadImageSettings(dir, { patch, squares: 'LlavaImageProcessor' })
  if (settings.crop?.height !== image || settings.crop.width !== image) {
    const reason = `pictures are not cropped to ${image} × ${image} pixels, the size of the vision tower`
    throw new CheckpointError(reason, { file: dir })
  }
  const { tokenizer, prompts } = await loadPrompts(dir, config)
  return new LlavaProcessor(config, settings, tokenizer, prompts)
}

/** Tokenizer and chat template; a picture is as many placeholders as it has features. */
export async function loadPrompts(
  dir: string,
  { text, imageTokenId }: LlavaConfig,
): Promise<{ tokenizer: Tokenizer; prompts: Prompts }> {
  const tokenizer = await loadTokenizer(dir)
  const image = { token: IMAGE_TOKEN, id: imageTokenId, key: 'image_token_index' }
  checkTokenizer(dir, tokenizer, { vocab: text.vocab, image, marks: [] })
  const template: ChatTemplate = await loadChatTemplate(dir)
  const expand = ({ features }: PictureLayout) => IMAGE_TOKEN.repeat(features)
  return {
    tokenizer,
    prompts: new Prompts(tokenizer, template, { placeholder: IMAGE_TOKEN, expand, last: IMAGE_TOKEN }),
  }
}

/** Made by `loadLlavaProcessor`. */
export class LlavaProcessor implements Processor {
  constructor(
    private readonly config: LlavaConfig,
    private readonly settings: LlavaImageSettings,
    readonly tokenizer: Tokenizer,
    readonly prompts: Prompts,
  ) {}

  /** Pixels are one square: [1, 3, image, image]. */
  preparePicture(image: RgbImage): Picture {
    const { vision } = this.config
    const side = vision.image
    const uint8 = new Uint8Array(3 * side * side)
    writePlanes({ image: prepareImage(image, this.settings), x: 0, y: 0 }, side, side, uint8)
    const cells = side / vision.patch
    return {
      layout: { rows: cells, cols: cells, features: patchesOf(vision) },
      uint8,
      inputs: { pixels: f32(normalise(uint8, side * side, this.settings), [1, 3, side, side]) },
    }
  }

  reference(pictures: readonly Picture[]): ReferenceInputs {
    if (pictures.length === 0) return { fields: {}, tensors: {}, pixels: null }
    const { dims, data } = joinTiles(pictures)
    const pixels = { shape: dims, uint8: Buffer.concat(pictures.map((p) => p.uint8)), values: data }
    return { fields: {}, tensors: {}, pixels }
  }
}
