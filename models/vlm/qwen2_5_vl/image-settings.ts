/** Image settings of a checkpoint folder: `processor_config.json` of transformers 5, else `preprocessor_config.json`. */
import { join } from 'node:path'
import { z } from 'zod'
import { CheckpointError } from '../../io/checkpoint-error.ts'
import { readJsonIfPresent } from '../../io/json-file.ts'
import type { Filter } from '../../io/pil-resize.ts'
import { count, or } from '../config-schema.ts'
import type { VisionConfig } from './config.ts'
import type { ImageSettings } from './patches.ts'
import type { PixelBounds } from './smart-resize.ts'

const filters: Readonly<Record<number, Filter>> = { 1: 'lanczos', 2: 'bilinear', 3: 'bicubic' }
const CLIP_MEAN = [0.48145466, 0.4578275, 0.40821073]
const CLIP_STD = [0.26862954, 0.26130258, 0.27577711]
const DEFAULT_BOUNDS = { minPixels: 56 * 56, maxPixels: 28 * 28 * 1280 }

const channels = z.array(z.number()).length(3)
const sizeSchema = z.looseObject({
  shortest_edge: count.nullish(),
  longest_edge: count.nullish(),
  min_pixels: count.nullish(),
  max_pixels: count.nullish(),
})
const imageSchema = z.looseObject({
  do_resize: or(z.boolean(), true),
  size: sizeSchema.nullish(),
  min_pixels: count.nullish(),
  max_pixels: count.nullish(),
  resample: or(
    z.int().refine((code) => code in filters, {
      error: 'only lanczos (1), bilinear (2) and bicubic (3) are supported',
    }),
    3,
  ),
  do_rescale: or(z.boolean(), true),
  rescale_factor: or(z.number(), 1 / 255),
  do_normalize: or(z.boolean(), true),
  image_mean: or(channels, CLIP_MEAN),
  image_std: or(channels, CLIP_STD),
  patch_size: or(count, 14),
  temporal_patch_size: or(count, 2),
  merge_size: or(count, 2),
})
const processorSchema = z.looseObject({ image_processor: imageSchema.nullish() })

/** Throws a CheckpointError where they are missing, malformed, or do not fit the vision tower. */
export async function loadImageSettings(dir: string, vision: VisionConfig): Promise<ImageSettings> {
  const nested = join(dir, 'processor_config.json')
  const hub = join(dir, 'preprocessor_config.json')
  const own = (await readJsonIfPresent(nested, processorSchema))?.image_processor
  const image = own ?? (await readJsonIfPresent(hub, imageSchema))
  if (!image)
    throw new CheckpointError('no image settings (preprocessor_config.json or processor_config.json)', { file: dir })
  const file = own ? nested : hub
  const settings = settingsOf(image)
  for (const key of ['patch', 'temporalPatch', 'merge'] as const)
    if (settings[key] !== vision[key])
      throw new CheckpointError(`${FIELDS[key]} is ${settings[key]} here and ${vision[key]} in config.json`, { file })
  const { bounds } = settings
  if (bounds && bounds.minPixels > bounds.maxPixels)
    throw new CheckpointError(`at least ${bounds.minPixels} pixels but at most ${bounds.maxPixels}`, { file })
  return settings
}

/** The settings of a file as transformers reports them. */
export function reportedSettings(stated: Readonly<Record<string, unknown>>): Record<string, unknown> {
  const image = imageSchema.parse(stated)
  const { minPixels, maxPixels } = boundsOf(image)
  const rest = Object.entries(image).filter(([name]) => !['min_pixels', 'max_pixels'].includes(name))
  return { ...Object.fromEntries(rest), size: { shortest_edge: minPixels, longest_edge: maxPixels } }
}

const FIELDS = { patch: 'patch_size', temporalPatch: 'temporal_patch_size', merge: 'merge_size' } as const

/** `min_pixels` and `max_pixels`, where given, win over `size`. */
function boundsOf({ size, min_pixels: least, max_pixels: most }: z.output<typeof imageSchema>): PixelBounds {
  return {
    minPixels: least ?? size?.shortest_edge ?? size?.min_pixels ?? DEFAULT_BOUNDS.minPixels,
    maxPixels: most ?? size?.longest_edge ?? size?.max_pixels ?? DEFAULT_BOUNDS.maxPixels,
  }
}

function settingsOf(image: z.output<typeof imageSchema>): ImageSettings {
  return {
    bounds: image.do_resize ? boundsOf(image) : null,
    filter: filters[image.resample]!,
    rescale: image.do_rescale ? image.rescale_factor : null,
    normalize: image.do_normalize ? { mean: image.image_mean, std: image.image_std } : null,
    patch: image.patch_size,
    temporalPatch: image.temporal_patch_size,
    merge: image.merge_size,
  }
}
