/**
 * Floating-point operations of the matrix products with weights. Attention, norms and sampling are not counted, so a
 * share of the GEMM bound computed from these is a lower bound.
 */
import type { SmolVlmConfig } from '../../models/vlm/smolvlm/config.ts'
import { expectedWeights } from '../../models/vlm/smolvlm/weights.ts'
import { sizeOf } from '../../models/tensor.ts'

export interface Work {
  /** Tokens through the text layers. */
  readonly tokens: number
  /** Tokens with vocabulary logits. */
  readonly predicted: number
  /** Pictures through the vision tower. */
  readonly pictures: number
}

/** Passes over each part: 1 forward; 2 with the gradient of its input; 3 with that of its weights as well. */
export interface Passes {
  readonly text: number
  readonly head: number
  readonly vision: number
}

export const FORWARD: Passes = { text: 1, head: 1, vision: 1 }
/** Frozen weights need no gradient of their own; frozen features none at all. */
export const LORA_UPDATE: Passes = { text: 2, head: 2, vision: 1 }
export const FULL_UPDATE: Passes = { text: 3, head: 3, vision: 3 }

/** Operations of one pass over one unit of each part. */
export function flopsPerUnit(config: SmolVlmConfig, pixels: number): Record<keyof Passes, number> {
  const parameters = (pattern: RegExp) =>
    expectedWeights(config).reduce((n, { name, dims }) => (pattern.test(name) ? n + sizeOf(dims) : n), 0)
  const patches = (pixels / config.vision.patch) ** 2
  const tokens = patches / config.scaleFactor ** 2
  return {
    text: 2 * parameters(/text_model\.layers\..*proj\.weight$/),
    head: 2 * config.text.vocab * config.text.hiddenSize,
    vision:
      2 * patches * parameters(/vision_model\..*(proj|fc\d|patch_embedding)\.weight$/) +
      2 * tokens * parameters(/connector/),
  }
}

export function flops(unit: Record<keyof Passes, number>, work: Work, passes: Passes): number {
  return (
    unit.text * work.tokens * passes.text +
    unit.head * work.predicted * passes.head +
    unit.vision * work.pictures * passes.vision
  )
}
