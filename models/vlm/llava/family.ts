/** LLaVA 1.5: one square a picture through CLIP, a projector, a Llama model. */
import { textWeights } from '../../layers/weights.ts'
import type { Architecture, Family } from '../family.ts'
import { joinTiles, tileInput, tilePasses } from '../tiles.ts'
import { clipWeights, imageFeatures } from './clip.ts'
import { type LlavaConfig, loadLlavaConfig } from './config.ts'
import { canonicalName, visionWeights } from './names.ts'
import { loadLlavaProcessor } from './processor.ts'

export const llava: Family = {
  canonicalName,
  open: async (dir) => {
    const config = await loadLlavaConfig(dir)
    return { architecture: llavaArchitecture(config), processor: await loadLlavaProcessor(dir, config) }
  },
}

function llavaArchitecture(config: LlavaConfig): Architecture {
  const side = config.vision.image
  return {
    family: 'llava',
    text: config.text,
    imageTokenId: config.imageTokenId,
    eosTokenIds: config.eosTokenIds,
    padTokenId: config.padTokenId,
    banned: [config.imageTokenId],
    weights: [...clipWeights(config), ...textWeights(config.text)],
    visionWeights,
    vision: {
      join: (pictures) => tileInput(joinTiles(pictures)),
      passes: (pictures) => tilePasses(joinTiles(pictures)),
      features: (params) =>
        imageFeatures(params, config, params.graph.input('pixels', 'float32', ['B', 3, side, side])),
    },
  }
}
