/** The inputs of the vision tower for one picture, computed in the graph from its patches and its grid. */
import { type Graph, product, type Value } from '../../graph/graph.ts'
import {
  add,
  arange,
  broadcastTo,
  cast,
  concat,
  div,
  equal,
  gather,
  less,
  logicalAnd,
  minimum,
  mul,
  nonzero,
  reshape,
  slice,
  sub,
  where,
} from '../../graph/ops.ts'
import { MASKED } from '../../layers/text.ts'
import { f32, i32 } from '../../tensor.ts'
import type { VisionConfig } from './config.ts'
import { MOST_TOKENS } from './patches.ts'
import { type Groups, rotaryTables, type VisionInputs, windowSide } from './vision-inputs.ts'

const TOKENS = 'num_features'
const WINDOWS = 'num_windows'

/** Where every image token stands, int32 [F], and the size of its picture in image tokens, int32 [1]. */
interface Places {
  readonly row: Value
  readonly col: Value
  readonly rows: Value
  readonly cols: Value
}

/**
 * Declares `pixel_values` float32 [m·F, 3·temporal·patch²] and `image_grid_thw` int64 [1, 3], as Qwen2VLImageProcessor
 * returns them for one picture, and computes from them what `visionFeeds` gives for it.
 */
export function gridInputs(
  graph: Graph,
  vision: VisionConfig,
): { readonly inputs: VisionInputs; readonly about: Readonly<Record<string, string>> } {
  const perToken = vision.merge ** 2
  const size = 3 * vision.temporalPatch * vision.patch ** 2
  const patches = product([TOKENS, perToken])
  const flat = graph.input('pixel_values', 'float32', [patches, size])
  const grid = reshape(cast(graph.input('image_grid_thw', 'int64', [1, 3]), 'int32'), [3])
  const pixels = reshape(flat, [TOKENS, perToken, size])
  const [rows, cols] = [1, 2].map((axis) => div(slice(grid, 0, axis, axis + 1), vision.merge)) as [Value, Value]
  const token = arange(pixels, 0)
  const row = div(token, cols)
  const places = { row, col: sub(token, mul(row, cols)), rows, cols }
  const patch = arange(flat, 0)
  const whole = { members: reshape(patch, [1, patches]), bias: null, cells: reshape(patch, [TOKENS, perToken]) }
  return {
    inputs: { pixels, ...rotaryRows(graph, vision, places), windows: windows(graph, vision, places), pictures: whole },
    about: {
      pixel_values: 'normalised patches of one picture; the features of several pictures follow one another',
      image_grid_thw: 'its grid of patches: 1, rows, columns',
    },
  }
}

/** n / side and n mod side, for n ≥ 0. */
function split(n: Value, side: number): { readonly window: Value; readonly within: Value } {
  const window = div(n, side)
  return { window, within: sub(n, mul(window, side)) }
}

/**
 * Every window is found by its first token and has the cells of a whole one; those that lie outside the picture hold some
 * other patch, which nothing sees.
 */
function windows(graph: Graph, vision: VisionConfig, { row, col, rows, cols }: Places): Groups {
  const side = windowSide(vision)
  const [area, perToken] = [side * side, vision.merge ** 2]
  const [down, right] = [split(row, side), split(col, side)]
  const first = nonzero(logicalAnd(equal(down.within, 0), equal(right.within, 0)), WINDOWS)
  const top = div(first, cols)
  const left = sub(first, mul(top, cols))
  const offsets = (of: (i: number) => number) =>
    graph.constant(
      i32(
        Int32Array.from({ length: area }, (_, i) => of(i)),
        [1, area],
      ),
    )
  const y = add(
    reshape(top, [WINDOWS, 1]),
    offsets((i) => Math.floor(i / side)),
  )
  const x = add(
    reshape(left, [WINDOWS, 1]),
    offsets((i) => i % side),
  )
  const inside = logicalAnd(less(y, rows), less(x, cols))
  const tokens = add(mul(minimum(y, sub(rows, 1)), cols), minimum(x, sub(cols, 1)))
  const length = area * perToken
  const seen = broadcastTo(reshape(where(inside, 0, MASKED), [WINDOWS, area, 1]), [WINDOWS, area, perToken])
  const across = div(add(cols, side - 1), side)
  const window = add(mul(down.window, across), right.window)
  const cell = add(mul(window, area), add(mul(down.within, side), right.within))
  return {
    members: reshape(patchesOf(graph, reshape(tokens, [WINDOWS, area, 1]), perToken), [WINDOWS, length]),
    bias: broadcastTo(reshape(seen, [WINDOWS, 1, length]), [WINDOWS, length, length]),
    cells: patchesOf(graph, reshape(cell, [TOKENS, 1]), perToken),
  }
}

/** The m patches of each image token [..., 1] → [..., m]. */
function patchesOf(graph: Graph, tokens: Value, perToken: number): Value {
  const own = i32(
    Int32Array.from({ length: perToken }, (_, k) => k),
    [...tokens.dims.slice(1).map(() => 1), perToken],
  )
  return add(mul(tokens, perToken), graph.constant(own))
}

/** cos and sin [m·F, headDim/2] of every patch: half by its row, half by its column. */
function rotaryRows(graph: Graph, vision: VisionConfig, { row, col }: Places): { cos: Value; sin: Value } {
  const { merge } = vision
  const perToken = merge ** 2
  const { cos, sin, width } = rotaryTables(vision, merge * MOST_TOKENS)
  const within = (of: (k: number) => number) =>
    graph.constant(
      i32(
        Int32Array.from({ length: perToken }, (_, k) => of(k)),
        [1, perToken],
      ),
    )
  const place = (n: Value, own: Value) =>
    reshape(add(mul(reshape(n, [TOKENS, 1]), merge), own), [product([TOKENS, perToken])])
  const y = place(
    row,
    within((k) => Math.floor(k / merge)),
  )
  const x = place(
    col,
    within((k) => k % merge),
  )
  const turned = (angles: Float32Array) => {
    const table = graph.constant(f32(angles, [merge * MOST_TOKENS, width]))
    return concat([gather(table, y), gather(table, x)], -1)
  }
  return { cos: turned(cos), sin: turned(sin) }
}
