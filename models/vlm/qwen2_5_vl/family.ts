/** Qwen2.5-VL, and MiMo-VL, which has its architecture. */
import type { Family } from '../family.ts'
import { loadQwen25VlConfig, textArchitecture } from './config.ts'
import { pictureSizes } from './picture-sizes.ts'
import { loadQwen25VlProcessor } from './processor.ts'
import { marks } from './prompt.ts'
import { prefixPositions } from './rope-index.ts'
import { qwen25VlVision, VISION_PREFIX } from './vision.ts'
import { canonicalName, expectedWeights } from './weights.ts'

export const qwen25Vl: Family = {
  canonicalName,
  open: async (dir) => {
    const config = await loadQwen25VlConfig(dir)
    const processor = await loadQwen25VlProcessor(dir, config)
    const special = marks.map((token) => processor.tokenizer.idOf(token))
    const architecture = {
      family: 'qwen2_5_vl',
      text: textArchitecture(config),
      imageTokenId: config.imageTokenId,
      eosTokenIds: config.eosTokenIds,
      padTokenId: config.padTokenId,
      banned: special.filter((id) => id !== undefined),
      weights: expectedWeights(config),
      visionWeights: new RegExp(`^${VISION_PREFIX}\\.`),
      vision: qwen25VlVision(config.vision),
      positions: (prefix: readonly number[], grids: Parameters<typeof prefixPositions>[1]) =>
        prefixPositions(prefix, grids, config.imageTokenId),
    }
    const { hidden, layers, heads, intermediate } = config.vision
    return {
      architecture,
      processor,
      visionSizes: { hidden, layers, heads, intermediate: 2 * intermediate },
      pictureSizes: (size) => pictureSizes(config.vision, processor.settings, size),
    }
  },
}
