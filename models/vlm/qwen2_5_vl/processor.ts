/** Messages and pictures → token ids and patches: Qwen2_5_VLProcessor of transformers. */
import { join } from 'node:path'
import { type ChatMessage, type ChatTemplate, loadChatTemplate } from '../../io/chat-template.ts'
import { CheckpointError } from '../../io/checkpoint-error.ts'
import type { RgbImage } from '../../io/image.ts'
import { loadTokenizer, type Tokenizer } from '../../io/tokenizer.ts'
import { f32 } from '../../tensor.ts'
import type { Picture, PictureLayout, Processor, ReferenceInputs, SplitPrompt } from '../family.ts'
import { Prompts } from '../prompts.ts'
import { joinTiles } from '../tiles.ts'
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
  checkTokens(join(dir, 'tokenizer.json'), config, tokenizer)
  return new Qwen25VlProcessor(settings, config.vision, tokenizer, await loadChatTemplate(dir))
}

/** Made by `loadQwen25VlProcessor`. */
export class Qwen25VlProcessor implements Processor {
  readonly #prompts: Prompts

  constructor(
    readonly settings: ImageSettings,
    private readonly vision: VisionConfig,
    readonly tokenizer: Tokenizer,
    template: ChatTemplate,
  ) {
    this.#prompts = new Prompts(tokenizer, template, pictureText)
  }

  /** The layout is that of the image tokens; pixels are [tokens, merge², 3·temporal·patch²]. */
  preparePicture(image: RgbImage): Picture {
    const { rows, cols, uint8, pixelValues } = patchImage(image, this.settings)
    const [features, perToken] = [rows * cols, this.settings.merge ** 2]
    const dims = [features, perToken, pixelValues.length / (features * perToken)]
    return { layout: { rows, cols, features }, uint8, inputs: { pixels: f32(pixelValues, dims) } }
  }

  splitPrompt(text: string, layout: PictureLayout | null): SplitPrompt {
    return this.#prompts.splitPrompt(text, layout)
  }

  splitMessages(messages: readonly ChatMessage[], layouts: readonly PictureLayout[]): SplitPrompt {
    return this.#prompts.splitMessages(messages, layouts)
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

/** The marks of pictures must be tokens, and the placeholder the one that the model looks for. */
function checkTokens(file: string, { text, imageTokenId }: Qwen25VlConfig, tokenizer: Tokenizer): void {
  if (tokenizer.vocabSize > text.vocab) {
    const reason = `${tokenizer.vocabSize} tokens, but the model has ${text.vocab} (vocab_size in config.json)`
    throw new CheckpointError(reason, { file })
  }
  for (const token of [imageToken, visionStart, visionEnd])
    if (tokenizer.idOf(token) === undefined)
      throw new CheckpointError(`no token ${token}; is it this model's tokenizer?`, { file })
  const id = tokenizer.idOf(imageToken)
  if (id !== imageTokenId)
    throw new CheckpointError(`${imageToken} is ${id} here and image_token_id ${imageTokenId} in config.json`, { file })
}
