/** Vision tower (CLIP ViT) and projector of LLaVA as graphs. */
import { product, type Value } from '../../graph/graph.ts'
import { add, broadcastTo, concat, gelu, linear, quickGelu, reshape, slice } from '../../graph/ops.ts'
import { encoderLayer, norm, patchRows } from '../../layers/encoder.ts'
import type { Parameters } from '../../layers/parameters.ts'
import { encoderWeights, type ExpectedWeight, linearWeights, normWeights, weight } from '../../layers/weights.ts'
import type { LlavaConfig } from './config.ts'

export interface ClipConfig {
  readonly hidden: number
  readonly layers: number
  /** Layers that the features go through; the others, and the final norm, are there and unused. */
  readonly usedLayers: number
  readonly heads: number
  readonly intermediate: number
  /** Pixels a side of a patch, and of an image. */
  readonly patch: number
  readonly image: number
  readonly layerNormEps: number
}

const TOWER = 'model.vision_tower'
const PROJECTOR = 'model.multi_modal_projector'

/** Features of one image: one for each patch. */
export const patchesOf = ({ image, patch }: ClipConfig): number => (image / patch) ** 2

/**
 * Projected hidden states of all patches of images; the class token is left out.
 *
 * @param pixels float32 [B, 3, image, image], normalised.
 * @returns float32 [B·patches, hidden of the text model], image by image, row by row.
 */
export function imageFeatures(params: Parameters, config: LlavaConfig, pixels: Value): Value {
  const { vision, text, projectorBias } = config
  const patches = patchesOf(vision)
  const hidden = slice(tower(params, vision, pixels), 1, 1, patches + 1)
  const rows = reshape(hidden, [product([pixels.dim(0), patches]), vision.hidden])
  const up = gelu(params.linear(`${PROJECTOR}.linear_1`, rows, projectorBias))
  const out = params.linear(`${PROJECTOR}.linear_2`, up, projectorBias)
  return reshape(out, [rows.dim(0), text.hiddenSize])
}

/** Hidden states [B, 1 + patches, hidden] of the chosen layer, the class token first. */
function tower(params: Parameters, vision: ClipConfig, pixels: Value): Value {
  const { hidden, patch, usedLayers, heads, layerNormEps } = vision
  const kernel = reshape(params.weight(`${TOWER}.embeddings.patch_embedding.weight`), [hidden, 3 * patch ** 2])
  const patches = linear(patchRows(pixels, patch), kernel)
  const own = reshape(params.weight(`${TOWER}.embeddings.class_embedding`), [1, 1, hidden])
  const tokens = concat([broadcastTo(own, [pixels.dim(0), 1, hidden]), patches], 1)
  const count = patchesOf(vision) + 1
  const positions = reshape(params.weight(`${TOWER}.embeddings.position_embedding.weight`), [1, count, hidden])
  let x = norm(params, `${TOWER}.pre_layrnorm`, add(tokens, positions), layerNormEps)
  const encoder = { heads, layerNormEps, activation: quickGelu }
  for (let layer = 0; layer < usedLayers; layer++)
    x = encoderLayer(params, encoder, `${TOWER}.encoder.layers.${layer}`, x)
  return x
}

/** Weights of the tower and the projector. */
export function clipWeights({ vision, text, projectorBias }: LlavaConfig): ExpectedWeight[] {
  const { hidden, layers, intermediate, patch } = vision
  const projection = (name: string, into: number) =>
    projectorBias
      ? linearWeights(`${PROJECTOR}.${name}`, text.hiddenSize, into)
      : [weight(`${PROJECTOR}.${name}.weight`, text.hiddenSize, into)]
  return [
    weight(`${TOWER}.embeddings.class_embedding`, hidden),
    weight(`${TOWER}.embeddings.patch_embedding.weight`, hidden, 3, patch, patch),
    weight(`${TOWER}.embeddings.position_embedding.weight`, patchesOf(vision) + 1, hidden),
    ...normWeights(`${TOWER}.pre_layrnorm`, hidden),
    ...encoderWeights(`${TOWER}.encoder.layers`, layers, hidden, intermediate),
    ...normWeights(`${TOWER}.post_layernorm`, hidden),
    ...projection('linear_1', hidden),
    ...projection('linear_2', text.hiddenSize),
  ]
}
