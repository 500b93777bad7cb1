/** Pieces of vision transformers that SigLIP and CLIP share: patches of an image, and encoder layers. */
import type { Value } from '../graph/graph.ts'
import { add, attention, layerNorm, reshape, transpose } from '../graph/ops.ts'
import type { Parameters } from './parameters.ts'

/**
 * Unfolds pixels [B, 3, h, w] into rows of patches [B, P, 3·patch²] (channel, y, x), row by row of the image. A
 * convolution whose stride is its kernel is a linear layer on these.
 */
export function patchRows(pixels: Value, patch: number): Value {
  const batch = pixels.dim(0)
  const [rows, cols] = [Number(pixels.dim(2)) / patch, Number(pixels.dim(3)) / patch]
  const unfolded = transpose(reshape(pixels, [batch, 3, rows, patch, cols, patch]), [0, 2, 4, 1, 3, 5])
  return reshape(unfolded, [batch, rows * cols, 3 * patch ** 2])
}

/** Layer normalisation with the weights `<name>.weight` and `<name>.bias`. */
export function norm(params: Parameters, name: string, x: Value, epsilon: number): Value {
  return layerNorm(x, params.weight(`${name}.weight`), params.weight(`${name}.bias`), epsilon)
}

export interface EncoderConfig {
  readonly heads: number
  readonly layerNormEps: number
  readonly activation: (x: Value) => Value
}

/** One pre-norm layer on x [B, P, D]; every patch sees every patch of its image. */
export function encoderLayer(params: Parameters, config: EncoderConfig, name: string, x: Value): Value {
  return params.graph.segment([x], () => layerOf(params, config, name, x))
}

function layerOf(params: Parameters, config: EncoderConfig, name: string, x: Value): Value {
  const { heads, layerNormEps, activation } = config
  const y = norm(params, `${name}.layer_norm1`, x, layerNormEps)
  const h = add(x, selfAttention(params, `${name}.self_attn`, y, heads))
  const z = norm(params, `${name}.layer_norm2`, h, layerNormEps)
  const up = activation(params.linear(`${name}.mlp.fc1`, z, true))
  return add(h, params.linear(`${name}.mlp.fc2`, up, true))
}

function selfAttention(params: Parameters, name: string, x: Value, heads: number): Value {
  const [q, k, v] = (['q_proj', 'k_proj', 'v_proj'] as const).map((p) => params.linear(`${name}.${p}`, x, true))
  return params.linear(`${name}.out_proj`, attention(q!, k!, v!, null, { heads, kvHeads: heads }), true)
}
