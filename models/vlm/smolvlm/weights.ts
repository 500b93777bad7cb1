/** Names and shapes of the weights of a SmolVLM or Idefics3 checkpoint. */
import { encoderWeights, type ExpectedWeight, normWeights, textWeights, weight } from '../../layers/weights.ts'
import { type SmolVlmConfig, textArchitecture, type VisionConfig } from './config.ts'

/** Every weight that a checkpoint of this config must hold. */
export function expectedWeights(config: SmolVlmConfig): ExpectedWeight[] {
  const { text, vision, scaleFactor } = config
  return [
    ...visionWeights(vision),
    weight('model.connector.modality_projection.proj.weight', text.hiddenSize, vision.hidden * scaleFactor ** 2),
    ...textWeights(textArchitecture(config)),
  ]
}

function visionWeights({ hidden, layers, intermediate, patch, image }: VisionConfig): ExpectedWeight[] {
  const root = 'model.vision_model'
  return [
    weight(`${root}.embeddings.patch_embedding.weight`, hidden, 3, patch, patch),
    weight(`${root}.embeddings.patch_embedding.bias`, hidden),
    weight(`${root}.embeddings.position_embedding.weight`, Math.floor(image / patch) ** 2, hidden),
    ...encoderWeights(`${root}.encoder.layers`, layers, hidden, intermediate),
    ...normWeights(`${root}.post_layernorm`, hidden),
  ]
}
