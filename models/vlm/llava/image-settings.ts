/** Settings of the image processors of LLaVA 1.5 and LLaVA-NeXT. */
import { join } from 'node:path'
import { z } from 'zod'
import { CheckpointError } from '../../io/checkpoint-error.ts'
import { readJsonIfPresent } from '../../io/json-file.ts'
import type { Filter } from '../../io/pil-resize.ts'
import type { Normalisation } from '../../io/pixels.ts'
import { count, only, or } from '../config-schema.ts'

export interface LlavaImageSettings extends Normalisation {
  /** Colour (0–255) with which a picture is made square before everything else; null: it is not. */
  readonly padColour: readonly [number, number, number] | null
  /** Resize so that the shortest edge has this many pixels, or to a fixed size; null: not at all. */
  readonly size: { readonly shortestEdge: number } | { readonly height: number; readonly width: number } | null
  /** Cut out of the middle, zeros where the picture is smaller; null: not at all. */
  readonly crop: { readonly height: number; readonly width: number } | null
  readonly filter: Filter
}

const filters: Readonly<Record<number, Filter>> = { 1: 'lanczos', 2: 'bilinear', 3: 'bicubic' }

const area = z.looseObject({ height: count, width: count })
const channels = z.array(z.number()).length(3)
const imageSchema = z.looseObject({
  image_processor_type: z.string().nullish(),
  do_pad: z.boolean().nullish(),
  do_resize: or(z.boolean(), true),
  size: or(z.union([z.looseObject({ shortest_edge: count, longest_edge: z.null().optional() }), area, count]), {
    shortest_edge: 224,
  } as const),
  resample: or(
    z
      .int()
      .refine((code) => code in filters, { error: 'only lanczos (1), bilinear (2) and bicubic (3) are supported' }),
    3,
  ),
  do_center_crop: or(z.boolean(), true),
  crop_size: or(z.union([area, count]), 224),
  do_rescale: or(z.boolean(), true),
  rescale_factor: or(z.number(), 1 / 255),
  do_normalize: or(z.boolean(), true),
  image_mean: or(channels, [0.48145466, 0.4578275, 0.40821073]),
  image_std: or(channels, [0.26862954, 0.26130258, 0.27577711]),
})
const processorSchema = z.looseObject({
  image_processor: imageSchema.optional(),
  patch_size: count.nullish(),
  vision_feature_select_strategy: only('default'),
})

/**
 * From `processor_config.json` (v5 layout) or `preprocessor_config.json` (hub layout).
 *
 * @param squares class of the image processor that pads to squares when it is asked to pad.
 * @throws CheckpointError when neither has them, or a value is not supported.
 */
export async function loadImageSettings(
  dir: string,
  { patch, squares }: { patch: number; squares: string | null },
): Promise<LlavaImageSettings> {
  const file = join(dir, 'processor_config.json')
  const processor = await readJsonIfPresent(file, processorSchema)
  const image =
    processor?.image_processor ?? (await readJsonIfPresent(join(dir, 'preprocessor_config.json'), imageSchema))
  if (!image)
    throw new CheckpointError('no image settings (preprocessor_config.json or processor_config.json)', { file: dir })
  const stated = processor?.patch_size ?? patch
  if (stated !== patch) throw new CheckpointError(`patch_size is ${stated}, but ${patch} in config.json`, { file })
  const { size, crop_size: crop, image_mean: mean } = image
  const pads = squares !== null && image.do_pad === true && image.image_processor_type === squares
  return {
    padColour: pads ? [colour(mean[0]!), colour(mean[1]!), colour(mean[2]!)] : null,
    size: image.do_resize ? sizeOf(size) : null,
    crop: image.do_center_crop ? (typeof crop === 'number' ? { height: crop, width: crop } : crop) : null,
    filter: filters[image.resample]!,
    rescale: image.do_rescale ? image.rescale_factor : null,
    normalize: image.do_normalize ? { mean, std: image.image_std } : null,
  }
}

const colour = (mean: number): number => Math.trunc(mean * 255)

function sizeOf(size: z.output<typeof imageSchema>['size']): LlavaImageSettings['size'] {
  if (typeof size === 'number') return { shortestEdge: size }
  return 'shortest_edge' in size
    ? { shortestEdge: size.shortest_edge as number }
    : { height: size.height, width: size.width }
}
