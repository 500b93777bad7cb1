/** Features of a picture's tiles, without those of its margins and with a newline behind each row of the grid. */
import type { Value } from '../../graph/graph.ts'
import { broadcastTo, cast, gather, greaterOrEqual, maximum, reshape, where } from '../../graph/ops.ts'
import { i32 } from '../../tensor.ts'
import type { Picture, Vision, VisionInput } from '../family.ts'
import { imageFeatures, patchesOf } from '../llava/clip.ts'
import type { LlavaConfig } from '../llava/config.ts'
import { joinTiles, mostTiles, pixelsOf } from '../tiles.ts'
import { NEWLINE } from './anyres.ts'

/** `pixels` float32 [tiles, 3, image, image] of all pictures; `order` int32 [F], rows of the features of all tiles. */
export function llavaNextVision(config: LlavaConfig): Vision {
  const side = config.vision.image
  const patches = patchesOf(config.vision)
  const join = (pictures: readonly Picture[]): VisionInput => ({
    graph: 'tiles',
    feeds: { pixels: joinTiles(pictures), order: joinOrders(pictures, patches) },
  })
  return {
    encoder: (params) => {
      const pixels = params.graph.input('pixel_values', 'float32', ['num_tiles', 3, side, side])
      const order = cast(params.graph.input('feature_order', 'int64', ['num_features']), 'int32')
      return {
        features: arrange(imageFeatures(params, config, pixels), order, params.weight('model.image_newline')),
        inputs: {
          pixel_values:
            'normalised tiles of all pictures, one after the other: of each the whole picture first, then its tiles row ' +
            'by row (pixel_values of the processor without the axis of the pictures and the tiles that fill it up)',
          feature_order:
            `for each placeholder in order, which feature stands there: tile · ${patches} + patch, or ${NEWLINE} for ` +
            'the newline; of a picture all patches of the whole picture, then, for each row of patches of its tiles ' +
            'put together without the margins that padding made (unpad_image of transformers, from image_sizes and ' +
            'image_grid_pinpoints), the patches of that row and a newline',
        },
      }
    },
    join,
    passes: (pictures) => groups(pictures, mostTiles(side, side)).map(join),
    features: (params) => {
      const pixels = params.graph.input('pixels', 'float32', ['B', 3, side, side])
      const order = params.graph.input('order', 'int32', ['F'])
      const newline = params.weight('model.image_newline')
      return arrange(imageFeatures(params, config, pixels), order, newline)
    },
  }
}

/** Rows of `features` [B·patches, hidden] in the given order; `newline` [hidden] where that is negative. */
function arrange(features: Value, order: Value, newline: Value): Value {
  const [count, hidden] = [order.dim(0), features.dim(1)]
  const line = broadcastTo(reshape(newline, [1, hidden]), [count, hidden])
  return where(reshape(greaterOrEqual(order, 0), [count, 1]), gather(features, maximum(order, 0)), line)
}

function joinOrders(pictures: readonly Picture[], patches: number) {
  let first = 0
  const all = pictures.flatMap((picture) => {
    const own = [...picture.inputs['order']!.data].map((row) =>
      Number(row) === NEWLINE ? NEWLINE : first + Number(row),
    )
    first += pixelsOf(picture).dims[0]! * patches
    return own
  })
  return i32(all, [all.length])
}

/** Runs of pictures of at most so many tiles together, at least one picture each. */
function groups(pictures: readonly Picture[], most: number): Picture[][] {
  const found: Picture[][] = []
  let tiles = 0
  for (const picture of pictures) {
    const own = pixelsOf(picture).dims[0]!
    const last = found.at(-1)
    if (last && tiles + own <= most) {
      last.push(picture)
      tiles += own
    } else {
      found.push([picture])
      tiles = own
    }
  }
  return found
}
