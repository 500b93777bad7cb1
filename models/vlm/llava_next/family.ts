/** LLaVA-NeXT (1.6): LLaVA with tiles of any resolution. */
import { textWeights, weight } from '../../layers/weights.ts'
import type { Family } from '../family.ts'
import { clipWeights, patchesOf } from '../llava/clip.ts'
import { loadLlavaConfig } from '../llava/config.ts'
import { canonicalName, visionWeights } from '../llava/names.ts'
import { tileSizes } from '../tiles.ts'
import { bestPinpoint, featureOrder } from './anyres.ts'
import { loadLlavaNextProcessor } from './processor.ts'
import { llavaNextVision } from './vision.ts'

export const llavaNext: Family = {
  canonicalName,
  open: async (dir) => {
    const config = await loadLlavaConfig(dir)
    const { text, imageTokenId, eosTokenIds, padTokenId } = config
    const newline = weight('model.image_newline', text.hiddenSize)
    const architecture = {
      family: 'llava_next',
      text,
      imageTokenId,
      eosTokenIds,
      padTokenId,
      banned: [imageTokenId],
      weights: [newline, ...clipWeights(config), ...textWeights(text)],
      visionWeights,
      vision: llavaNextVision(config),
    }
    const { image, patch } = config.vision
    return {
      architecture,
      processor: await loadLlavaNextProcessor(dir, config),
      visionSizes: config.vision,
      pictureSizes: ({ width, height }) => {
        const [tall, wide] = bestPinpoint([height, width], config.pinpoints)
        const grid = [tall / image, wide / image] as const
        const sizes = tileSizes(image, patchesOf(config.vision), 1 + grid[0] * grid[1])
        return { ...sizes, features: featureOrder([height, width], grid, image / patch).length }
      },
    }
  },
}
