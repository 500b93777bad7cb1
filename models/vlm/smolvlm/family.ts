/** SmolVLM and Idefics3. Checkpoints name their weights as transformers 5 does, in every layout. */
import type { Family } from '../family.ts'
import { tileSizes } from '../tiles.ts'
import { loadSmolVlmConfig, textArchitecture } from './config.ts'
import { loadSmolVlmProcessor } from './processor.ts'
import { fakeToken, globalToken, imageToken } from './prompt.ts'
import { mostTiles } from './tiles.ts'
import { smolVlmVision } from './vision.ts'
import { expectedWeights } from './weights.ts'

export const smolVlm: Family = {
  canonicalName: (stored) => stored,
  open: async (dir) => {
    const config = await loadSmolVlmConfig(dir)
    const processor = await loadSmolVlmProcessor(dir, config)
    const special = [imageToken, fakeToken, globalToken].map((token) => processor.tokenizer.idOf(token))
    const architecture = {
      family: 'smolvlm',
      text: textArchitecture(config),
      imageTokenId: config.imageTokenId,
      eosTokenIds: config.eosTokenIds,
      padTokenId: config.padTokenId,
      banned: [config.imageTokenId, ...special.filter((id) => id !== undefined)],
      weights: expectedWeights(config),
      visionWeights: /^model\.(vision_model|connector)\./,
      vision: smolVlmVision(config, processor.settings.tile),
    }
    const { settings, imageSeqLen } = processor
    return {
      architecture,
      processor,
      visionSizes: config.vision,
      pictureSizes: (size) => {
        const tiles = mostTiles(size, settings)
        const patches = (settings.tile / config.vision.patch) ** 2
        return { ...tileSizes(settings.tile, patches, tiles), features: tiles * imageSeqLen }
      },
    }
  },
}
