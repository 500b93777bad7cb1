/** LLaVA 1.5: one square a picture through CLIP, a projector, a Llama model. */
import { reshape } from '../../graph/ops.ts'
import { textWeights } from '../../layers/weights.ts'
import type { Family, Vision } from '../family.ts'
import { joinTiles, tileInput, tilePasses, tileSizes } from '../tiles.ts'
import { clipWeights, imageFeatures, patchesOf } from './clip.ts'
import { type LlavaConfig, loadLlavaConfig } from './config.ts'
import { canonicalName, visionWeights } from './names.ts'
import { loadLlavaProcessor } from './processor.ts'

export const llava: Family = {
  canonicalName,
  open: async (dir) => {
    const config = await loadLlavaConfig(dir)
    const { text, imageTokenId, eosTokenIds, padTokenId } = config
    const architecture = {
      family: 'llava',
      text,
      imageTokenId,
      eosTokenIds,
      padTokenId,
      banned: [imageTokenId],
      weights: [...clipWeights(config), ...textWeights(text)],
      visionWeights,
      vision: llavaVision(config),
    }
    const patches = patchesOf(config.vision)
    return {
      architecture,
      processor: await loadLlavaProcessor(dir, config),
      visionSizes: config.vision,
      pictureSizes: () => ({ ...tileSizes(config.vision.image, patches, 1), features: patches }),
    }
  },
}

/** `pixels` float32 [pictures, 3, image, image] to features; every picture gives the same number. */
function llavaVision(config: LlavaConfig): Vision {
  const side = config.vision.image
  const patches = patchesOf(config.vision)
  return {
    encoder: (params) => {
      const pixels = params.graph.input('pixel_values', 'float32', ['num_images', 3, side, side])
      const features = imageFeatures(params, config, pixels)
      return {
        features: reshape(features, ['num_images', patches, features.dim(-1)]),
        inputs: { pixel_values: 'normalised pictures' },
      }
    },
    join: (pictures) => tileInput(joinTiles(pictures)),
    passes: (pictures) => tilePasses(joinTiles(pictures)),
    features: (params) => imageFeatures(params, config, params.graph.input('pixels', 'float32', ['B', 3, side, side])),
  }
}
