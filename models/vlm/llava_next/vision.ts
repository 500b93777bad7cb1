/** Features of a picture's tiles, without those of its margins and with a newline behind each row of the grid. */
import type { Value } from '../../graph/graph.ts'
import { broadcastTo, cast, gather, greaterOrEqual, maximum, reshape, where } from '../../graph/ops.ts'
import { i32 } from '../../tensor.ts'
import type { Picture, Vision, VisionInput } from '../family.ts'
import { imageFeatures, patchesOf } from '../llava/clip.ts'
import type { LlavaConfig } from '../llava/config.ts'
import { joinTiles, mostTiles, pixelsOf } from '../tiles.ts'
import { NEWLINE } from './anyres.ts'
import { orderGraph } from './order-graph.ts'

const TILES = 'num_tiles'

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
      const { graph } = params
      const pixels = reshape(graph.input('pixel_values', 'float32', [1, TILES, 3, side, side]), [TILES, 3, side, side])
      const size = cast(graph.input('image_sizes', 'int64', [1, 2]), 'int32')
      const sizes = { tile: side, side: side / config.vision.patch, pinpoints: config.pinpoints }
      const order = orderGraph(pixels, size, sizes)
      return {
        features: arrange(imageFeatures(params, config, pixels), order, params.weight('model.image_newline')),
        inputs: {
          pixel_values:
            'normalised tiles of one picture, the whole one first; the features of several pictures follow one another',
          image_sizes: 'its height and width in pixels before any resizing',
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
