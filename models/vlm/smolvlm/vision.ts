/** Vision tower (SigLIP) and connector (pixel shuffle + linear) of SmolVLM / Idefics3 as graphs. */
import { product, type Value } from '../../graph/graph.ts'
import {
  add,
  cast,
  constant,
  gather,
  geluTanh,
  greaterOrEqual,
  linear,
  nonzero,
  reduceMax,
  reshape,
  transpose,
} from '../../graph/ops.ts'
import { encoderLayer, norm, patchRows } from '../../layers/encoder.ts'
import type { Parameters } from '../../layers/parameters.ts'
import { i32 } from '../../tensor.ts'
import type { Vision, VisionEncoder } from '../family.ts'
import { joinTiles, tileInput, tilePasses } from '../tiles.ts'
import type { SmolVlmConfig } from './config.ts'
import { visionPositionIds } from './vision-positions.ts'

const PREFIX = 'model.vision_model'

/**
 * `pixels` float32 [tiles, 3, height, width] to features; every tile gives the same number.
 *
 * @param tile pixels a side of the tiles that the processor makes.
 */
export function smolVlmVision(config: SmolVlmConfig, tile: number): Vision {
  return {
    encoder: (params) => encoder(params, config, tile),
    join: (pictures) => tileInput(joinTiles(pictures)),
    passes: (pictures) => tilePasses(joinTiles(pictures)),
    features: (params, { feeds }) => {
      const [, , height, width] = feeds['pixels']!.dims as [number, number, number, number]
      const pixels = params.graph.input('pixels', 'float32', ['B', 3, height, width])
      return tileFeatures(params, config, pixels)
    },
  }
}

/** Features [B·tokens, hidden of the text model] of square tiles [B, 3, side, side]. */
function tileFeatures(params: Parameters, config: SmolVlmConfig, pixels: Value): Value {
  const { patch, image } = config.vision
  const [rows, cols] = [Number(pixels.dim(2)) / patch, Number(pixels.dim(3)) / patch]
  const ids = visionPositionIds(rows, Math.floor(image / patch))
  const positions = constant(params.graph, i32(ids, [rows * cols]))
  return connector(params, config, visionTower(params, config, pixels, positions), rows, cols)
}

/** Tiles of several conversations; those that only fill up the batch, whose mask is empty, give no features. */
function encoder(params: Parameters, config: SmolVlmConfig, tile: number): VisionEncoder {
  const { graph } = params
  const [batch, images] = ['batch_size', 'num_images']
  const pixels = graph.input('pixel_values', 'float32', [batch, images, 3, tile, tile])
  const mask = graph.input('pixel_attention_mask', 'bool', [batch, images, tile, tile])
  const all = product([batch, images])
  const filled = reduceMax(cast(reshape(mask, [all, tile * tile]), 'int32'), { axes: [1] })
  const real = nonzero(greaterOrEqual(filled, 1), 'num_tiles')
  const tiles = gather(reshape(pixels, [all, 3, tile, tile]), real)
  const features = tileFeatures(params, config, tiles)
  const tokens = (tile / config.vision.patch / config.scaleFactor) ** 2
  return {
    features: reshape(features, ['num_tiles', tokens, features.dim(-1)]),
    inputs: {
      pixel_values: 'normalised tiles of the pictures of each conversation, filled up with empty ones',
      pixel_attention_mask: 'true everywhere in a tile, false everywhere in one that only fills up the batch',
    },
  }
}

/**
 * Hidden states of all patches.
 *
 * @param pixels float32 [B, 3, h, w], normalised.
 * @param positions int32 [P], position-table index of every patch, P = (h/patch)·(w/patch).
 * @returns float32 [B, P, hidden]
 */
export function visionTower(params: Parameters, config: SmolVlmConfig, pixels: Value, positions: Value): Value {
  const { hidden, patch, layers, heads, layerNormEps } = config.vision
  const kernel = reshape(params.weight(`${PREFIX}.embeddings.patch_embedding.weight`), [hidden, 3 * patch ** 2])
  let x = linear(patchRows(pixels, patch), kernel, params.weight(`${PREFIX}.embeddings.patch_embedding.bias`))
  x = add(x, params.rows(`${PREFIX}.embeddings.position_embedding.weight`, positions))
  const encoder = { heads, layerNormEps, activation: geluTanh }
  for (let layer = 0; layer < layers; layer++) x = encoderLayer(params, encoder, `${PREFIX}.encoder.layers.${layer}`, x)
  return norm(params, `${PREFIX}.post_layernorm`, x, layerNormEps)
}

/**
 * Image tokens: `scaleFactor`² neighbouring patches become one feature of the text model.
 *
 * @param x float32 [B, rows·cols, hidden]
 * @returns float32 [B·rows·cols/s², hidden of the text model], in the order of the image placeholders.
 */
function connector(params: Parameters, config: SmolVlmConfig, x: Value, rows: number, cols: number): Value {
  const s = config.scaleFactor
  const [batch, width] = [x.dim(0), config.vision.hidden]
  const grid = transpose(reshape(x, [batch, rows / s, s, cols / s, s, width]), [0, 1, 3, 2, 4, 5])
  const merged = reshape(grid, [product([batch, (rows / s) * (cols / s)]), s * s * width])
  return params.linear('model.connector.modality_projection.proj', merged)
}
