/** Messages and pictures → token ids and pixels: LlavaNextProcessor of transformers. */
import { join } from 'node:path'
import { z } from 'zod'
import { CheckpointError } from '../../io/checkpoint-error.ts'
import type { RgbImage } from '../../io/image.ts'
import { readJsonIfPresent } from '../../io/json-file.ts'
import { resize } from '../../io/pil-resize.ts'
import { normalise, writePlanes } from '../../io/pixels.ts'
import type { Tokenizer } from '../../io/tokenizer.ts'
import { f32, i32 } from '../../tensor.ts'
import type { Picture, Processor, ReferenceInputs } from '../family.ts'
import type { LlavaConfig } from '../llava/config.ts'
import { place } from '../llava/image.ts'
import { type LlavaImageSettings, loadImageSettings } from '../llava/image-settings.ts'
import { loadPrompts } from '../llava/processor.ts'
import type { Prompts } from '../prompts.ts'
import { pixelsOf } from '../tiles.ts'
import { bestPinpoint, featureOrder, fittedSize, type Size } from './anyres.ts'

const pinpointsSchema = z.looseObject({ image_grid_pinpoints: z.array(z.tuple([z.int(), z.int()])).optional() })
const processorSchema = z.looseObject({ image_processor: pinpointsSchema.optional() })

/** Load the tokenizer, chat template and image settings of a checkpoint folder; they must fit the model's config. */
export async function loadLlavaNextProcessor(dir: string, config: LlavaConfig): Promise<LlavaNextProcessor> {
  const { patch, image } = config.vision
  const settings = await loadImageSettings(dir, { patch, squares: null })
  const { size, crop } = settings
  const side = size && ('height' in size ? (size.height === size.width ? size.height : null) : size.shortestEdge)
  if (side !== image || (crop && (crop.height !== image || crop.width !== image))) {
    const reason = `tiles are not resized to ${image} × ${image} pixels, the size of the vision tower`
    throw new CheckpointError(reason, { file: dir })
  }
  await checkPinpoints(dir, config)
  const { tokenizer, prompts } = await loadPrompts(dir, config)
  return new LlavaNextProcessor(config, settings, tokenizer, prompts)
}

/** Model and processor must cut a picture into the same tiles. */
async function checkPinpoints(dir: string, { pinpoints }: LlavaConfig): Promise<void> {
  const file = join(dir, 'processor_config.json')
  const hub = join(dir, 'preprocessor_config.json')
  const stated =
    (await readJsonIfPresent(file, processorSchema))?.image_processor ?? (await readJsonIfPresent(hub, pinpointsSchema))
  const own = stated?.image_grid_pinpoints
  if (own && JSON.stringify(own) !== JSON.stringify(pinpoints))
    throw new CheckpointError('image_grid_pinpoints of the image processor are not those of config.json', { file: dir })
}

/** Made by `loadLlavaNextProcessor`. */
export class LlavaNextProcessor implements Processor {
  constructor(
    private readonly config: LlavaConfig,
    private readonly settings: LlavaImageSettings,
    readonly tokenizer: Tokenizer,
    readonly prompts: Prompts,
  ) {}

  /**
   * Pixels are the whole picture as one tile, then the tiles of the pinpoint, row by row: [tiles, 3, image, image].
   * `order` int32 [features] says which feature of which tile stands at each placeholder (see `featureOrder`).
   */
  preparePicture(image: RgbImage): Picture {
    const { vision, pinpoints } = this.config
    const side = vision.image
    const size: Size = [image.height, image.width]
    const target = bestPinpoint(size, pinpoints)
    const grid: Size = [target[0] / side, target[1] / side]
    const tiles = 1 + grid[0] * grid[1]
    const plane = side * side
    const uint8 = new Uint8Array(tiles * 3 * plane)
    const at = (tile: number) => uint8.subarray(tile * 3 * plane, (tile + 1) * 3 * plane)
    writePlanes({ image: resize(image, side, side, this.settings.filter), x: 0, y: 0 }, side, side, at(0))
    const whole = this.#fit(image, target)
    for (let tile = 1; tile < tiles; tile++) {
      const [row, col] = [Math.floor((tile - 1) / grid[1]), (tile - 1) % grid[1]]
      writePlanes({ image: whole, x: col * side, y: row * side }, side, side, at(tile))
    }
    const order = featureOrder(size, grid, side / vision.patch)
    return {
      layout: { rows: grid[0], cols: grid[1], features: order.length },
      size,
      uint8,
      inputs: {
        pixels: f32(normalise(uint8, plane, this.settings), [tiles, 3, side, side]),
        order: i32(order, [order.length]),
      },
    }
  }

  /** The picture inside the pinpoint, black margins around it. */
  #fit(image: RgbImage, target: Size): RgbImage {
    const [height, width] = fittedSize([image.height, image.width], target)
    const resized = resize(image, width, height, this.settings.filter)
    const [y, x] = [Math.floor((target[0] - height) / 2), Math.floor((target[1] - width) / 2)]
    return place(resized, target[1], target[0], x, y)
  }

  /** Pictures are filled up with zeros to the tiles of the largest. */
  reference(pictures: readonly Picture[]): ReferenceInputs {
    if (pictures.length === 0) return { fields: {}, tensors: {}, pixels: null }
    const own = pictures.map(pixelsOf)
    const most = Math.max(...own.map((p) => p.dims[0]!))
    const tile = own[0]!.dims.slice(1)
    const size = most * tile.reduce((a, b) => a * b, 1)
    const uint8 = new Uint8Array(pictures.length * size)
    const values = new Float32Array(pictures.length * size)
    pictures.forEach((picture, i) => {
      uint8.set(picture.uint8, i * size)
      values.set(own[i]!.data, i * size)
    })
    return {
      fields: { image_sizes: pictures.map((p) => p.size) },
      tensors: {},
      pixels: { shape: [pictures.length, most, ...tile], uint8, values },
    }
  }
}
