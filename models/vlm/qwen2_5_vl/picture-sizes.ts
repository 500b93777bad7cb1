/** What a picture costs in the vision tower of Qwen2.5-VL. */
import type { PictureSizes } from '../../memory/estimate.ts'
import type { VisionConfig } from './config.ts'
import type { ImageSettings } from './patches.ts'
import { type Size, smartResize } from './smart-resize.ts'

/** Attention inside windows has its scores written; over the whole picture only where a gradient needs them. */
export function pictureSizes(
  { patch, temporalPatch, merge, window, layers, fullAttention }: VisionConfig,
  { bounds }: Pick<ImageSettings, 'bounds'>,
  size: Size,
): PictureSizes {
  const { width, height } = bounds ? smartResize(size, patch * merge, bounds) : size
  const patches = Math.floor(width / patch) * Math.floor(height / patch)
  const near = Math.min(patches, Math.floor(window / patch) ** 2)
  const whole = fullAttention.length / layers
  return {
    features: patches / merge ** 2,
    values: patches * 3 * temporalPatch * patch ** 2,
    patches,
    passPatches: patches,
    attended: near,
    attendedTrained: whole * patches + (1 - whole) * near,
  }
}
