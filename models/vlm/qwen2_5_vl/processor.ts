/** Messages and pictures → token ids and patches: Qwen2_5_VLProcessor of transformers. */
import { type ChatTemplate, loadChatTemplate } from '../../io/chat-template.ts'
import type { RgbImage } from '../../io/image.ts'
import { loadTokenizer, type Tokenizer } from '../../io/tokenizer.ts'
import { f32 } from '../../tensor.ts'
import type { Picture, Processor, ReferenceInputs } from '../family.ts'
import { Prompts } from '../prompts.ts'
import { joinTiles } from '../tiles.ts'
import { checkTokenizer } from '../tokenizer-fit.ts'
import type { Qwen25VlConfig, VisionConfig } from './config.ts'
import { loadImageSettings, reportedSettings } from './image-settings.ts'
import { type ImageSettings, patchImage } from './patches.ts'
import { imageToken, pictureText, visionEnd, visionStart } from './prompt.ts'
import { patchPlaces, windowSide } from './vision-inputs.ts'
import { windowIndex } from './windows.ts'

/** Load the tokenizer, chat template and image settings of a checkpoint folder; they must fit the model's config. */
export async function loadQwen25VlProcessor(dir: string, config: Qwen25VlConfig): Promise<Qwen25VlProcessor> {
  const settings = await loadImageSettings(dir, config.vision)
  const tokenizer = await loadTokenizer(dir)
  const image = { token: imageToken, id: config.imageTokenId, key: 'image_token_id' }
  checkTokenizer(dir, tokenizer, { vocab: config.text.vocab, image, marks: [visionStart, visionEnd] })
  return new Qwen25VlProcessor(settings, config.vision, tokenizer, await loadChatTemplate(dir))
}

/** Made by `loadQwen25VlProcessor`. */
export class Qwen25VlProcessor implements Processor {
  readonly prompts: Prompts

  constructor(
    readonly settings: ImageSettings,
    private readonly vision: VisionConfig,
    readonly tokenizer: Tokenizer,
    template: ChatTemplate,
  ) {
    this.prompts = new Prompts(tokenizer, template, pictureText)
  }

  /** The layout is that of the image tokens; pixels are [tokens, merge², 3·temporal·patch²]. */
  preparePicture(image: RgbImage): Picture {
    const { rows, cols, uint8, pixelValues } = patchImage(image, this.settings)
    const [features, perToken] = [rows * cols, this.settings.merge ** 2]
    const dims = [features, perToken, pixelValues.length / (features * perToken)]
    return { layout: { rows, cols, features }, uint8, inputs: { pixels: f32(pixelValues, dims) } }
  }

  reportedSettings(stated: Readonly<Record<string, unknown>>): Record<string, unknown> {
    return reportedSettings(stated)
  }

  reference(pictures: readonly Picture[]): ReferenceInputs {
    if (pictures.length === 0) return { fields: {}, tensors: {}, pixels: null }
    const { merge } = this.settings
    const grids = pictures.map((p) => p.layout)
    const { order, bounds } = windowIndex(grids, windowSide(this.vision))
    const { dims, data } = joinTiles(pictures)
    const [tokens, perToken, size] = dims as [number, number, number]
    return {
      fields: { image_grid_thw: grids.map(({ rows, cols }) => [1, rows * merge, cols * merge]) },
      tensors: {
        'vision.position_ids': patchPlaces(grids, merge).flatMap(({ row, col }) => [row, col]),
        'vision.window_index': order,
        'vision.cu_window_seqlens': bounds.map((token) => token * perToken),
      },
      pixels: { shape: [tokens * perToken, size], uint8: Buffer.concat(pictures.map((p) => p.uint8)), values: data },
    }
  }
}
