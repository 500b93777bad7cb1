/** Vision tower (SigLIP) and connector (pixel shuffle + linear) of SmolVLM / Idefics3 as graphs. */
import { product, type Value } from '../../graph/graph.ts'
import { add, attention, gather, geluTanh, layerNorm, linear, reshape, transpose } from '../../graph/ops.ts'
import type { Parameters } from '../parameters.ts'
import type { SmolVlmConfig } from './config.ts'

const PREFIX = 'model.vision_model'

/**
 * Hidden states of all patches.
 *
 * @param pixels float32 [B, 3, h, w], normalised.
 * @param positions int32 [P], position-table index of every patch, P = (h/patch)·(w/patch).
 * @returns float32 [B, P, hidden]
 */
export function visionTower(params: Parameters, config: SmolVlmConfig, pixels: Value, positions: Value): Value {
  const { vision } = config
  const batch = pixels.dim(0)
  const [rows, cols] = [Number(pixels.dim(2)) / vision.patch, Number(pixels.dim(3)) / vision.patch]
  // A convolution whose stride is its kernel is a linear layer on unfolded patches (channel, y, x).
  const unfolded = transpose(reshape(pixels, [batch, 3, rows, vision.patch, cols, vision.patch]), [0, 2, 4, 1, 3, 5])
  const patches = reshape(unfolded, [batch, rows * cols, 3 * vision.patch ** 2])
  const kernel = reshape(params.weight(`${PREFIX}.embeddings.patch_embedding.weight`), [
    vision.hidden,
    3 * vision.patch ** 2,
  ])
  let x = linear(patches, kernel, params.weight(`${PREFIX}.embeddings.patch_embedding.bias`))
  x = add(x, gather(params.weight(`${PREFIX}.embeddings.position_embedding.weight`), positions))
  for (let layer = 0; layer < vision.layers; layer++)
    x = visionLayer(params, config, `${PREFIX}.encoder.layers.${layer}`, x)
  return norm(params, `${PREFIX}.post_layernorm`, x, vision.layerNormEps)
}

function norm(params: Parameters, name: string, x: Value, epsilon: number): Value {
  return layerNorm(x, params.weight(`${name}.weight`), params.weight(`${name}.bias`), epsilon)
}

function visionLayer(params: Parameters, { vision }: SmolVlmConfig, name: string, x: Value): Value {
  const y = norm(params, `${name}.layer_norm1`, x, vision.layerNormEps)
  const h = add(x, selfAttention(params, `${name}.self_attn`, y, vision.heads))
  const z = norm(params, `${name}.layer_norm2`, h, vision.layerNormEps)
  const up = geluTanh(params.linear(`${name}.mlp.fc1`, z, true))
  return add(h, params.linear(`${name}.mlp.fc2`, up, true))
}

/** Attention among all patches of an image, x [B, P, D]. */
function selfAttention(params: Parameters, name: string, x: Value, heads: number): Value {
  const [q, k, v] = (['q_proj', 'k_proj', 'v_proj'] as const).map((p) => params.linear(`${name}.${p}`, x, true))
  return params.linear(`${name}.out_proj`, attention(q!, k!, v!, null, { heads, kvHeads: heads }), true)
}

/**
 * Image tokens: `scaleFactor`² neighbouring patches become one feature of the text model.
 *
 * @param x float32 [B, rows·cols, hidden]
 * @returns float32 [B·rows·cols/s², hidden of the text model], in the order of the image placeholders.
 */
export function connector(params: Parameters, config: SmolVlmConfig, x: Value, rows: number, cols: number): Value {
  const s = config.scaleFactor
  const [batch, width] = [x.dim(0), config.vision.hidden]
  const grid = transpose(reshape(x, [batch, rows / s, s, cols / s, s, width]), [0, 1, 3, 2, 4, 5])
  const merged = reshape(grid, [product([batch, (rows / s) * (cols / s)]), s * s * width])
  return params.linear('model.connector.modality_projection.proj', merged)
}
