/** Names and shapes of the weights of a Qwen2.5-VL checkpoint. */
import { type ExpectedWeight, linearWeights, textWeights, weight } from '../../layers/weights.ts'
import { type Qwen25VlConfig, textArchitecture, type VisionConfig } from './config.ts'
import { VISION_PREFIX } from './vision.ts'

/** Every weight that a checkpoint of this config must hold. */
export function expectedWeights(config: Qwen25VlConfig): ExpectedWeight[] {
  return [...visionWeights(config.vision, config.text.hiddenSize), ...textWeights(textArchitecture(config))]
}

/** Files of all layouts say `model.layers…` and `visual…`; since transformers 4.52 the modules have longer names. */
export function canonicalName(stored: string): string {
  return stored
    .replace(/^model\.(?=(layers|embed_tokens|norm)\.)/, 'model.language_model.')
    .replace(/^visual\./, 'model.visual.')
}

function visionWeights({ hidden, layers, intermediate, patch, temporalPatch, merge }: VisionConfig, out: number) {
  const blocks = Array.from({ length: layers }, (_, i) => `${VISION_PREFIX}.blocks.${i}`).flatMap((block) => [
    weight(`${block}.norm1.weight`, hidden),
    weight(`${block}.norm2.weight`, hidden),
    ...linearWeights(`${block}.attn.qkv`, 3 * hidden, hidden),
    ...linearWeights(`${block}.attn.proj`, hidden, hidden),
    ...linearWeights(`${block}.mlp.gate_proj`, intermediate, hidden),
    ...linearWeights(`${block}.mlp.up_proj`, intermediate, hidden),
    ...linearWeights(`${block}.mlp.down_proj`, hidden, intermediate),
  ])
  const wide = hidden * merge ** 2
  return [
    weight(`${VISION_PREFIX}.patch_embed.proj.weight`, hidden, 3, temporalPatch, patch, patch),
    ...blocks,
    weight(`${VISION_PREFIX}.merger.ln_q.weight`, hidden),
    ...linearWeights(`${VISION_PREFIX}.merger.mlp.0`, wide, wide),
    ...linearWeights(`${VISION_PREFIX}.merger.mlp.2`, out, wide),
  ]
}
