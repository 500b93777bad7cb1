/** Which feature of which tile stands at each placeholder, computed in the graph: `featureOrder` for one picture. */
import { type Graph, sum, type Value } from '../../graph/graph.ts'
import {
  add,
  arange,
  argmax,
  concat,
  constant,
  div,
  equal,
  gather,
  greaterOrEqual,
  less,
  logicalAnd,
  logicalNot,
  minimum,
  mul,
  neg,
  nonzero,
  reduceMax,
  reshape,
  slice,
  sub,
  where,
} from '../../graph/ops.ts'
import { i32 } from '../../tensor.ts'
import { NEWLINE, type Size } from './anyres.ts'

const GRID = 'num_grid_features'
const NEVER = -(2 ** 30)

/** Sizes of a model: pixels and patches a side of a tile, and what pictures are fitted into. */
export interface TileSizes {
  readonly tile: number
  readonly side: number
  readonly pinpoints: readonly Size[]
}

/**
 * @param tiles any value whose axis 0 is the number of tiles of the picture, the whole one among them.
 * @param size int32 [1, 2], height and width of the picture.
 * @returns int32 [features], as `featureOrder` numbers them.
 */
export function orderGraph(tiles: Value, size: Value, sizes: TileSizes): Value {
  const { graph } = tiles
  const { side, tile, pinpoints } = sizes
  const [height, width] = [0, 1].map((i) => reshape(slice(size, 1, i, i + 1), [1])) as [Value, Value]
  const best = bestPinpoint(tiles, height, width, sizes)
  const ofBest = (axis: 0 | 1) =>
    reshape(
      gather(
        ints(graph, pinpoints, (p) => p[axis] / tile),
        best,
      ),
      [1],
    )
  const [tileRows, tileCols] = [ofBest(0), ofBest(1)]
  const [rows, cols] = [mul(tileRows, side), mul(tileCols, side)]
  const wide = less(mul(cols, height), mul(width, rows))
  const top = where(wide, div(sub(rows, div(mul(height, cols), width)), 2), 0)
  const left = where(wide, 0, div(sub(cols, div(mul(width, rows), height)), 2))

  // Every place of the largest grid, and a column for the newlines; those outside the picture are left out.
  const [most, across] = [0, 1].map((axis) => (Math.max(...pinpoints.map((p) => p[axis]!)) / tile) * side) as [
    number,
    number,
  ]
  const places = Array.from({ length: most * (across + 1) }, (_, i) => i)
  const y = ints(graph, places, (i) => Math.floor(i / (across + 1)))
  const x = ints(graph, places, (i) => i % (across + 1))
  const inRows = logicalAnd(greaterOrEqual(y, top), less(y, sub(rows, top)))
  const inCols = logicalAnd(greaterOrEqual(x, left), less(x, sub(cols, left)))
  const shown = nonzero(logicalAnd(inRows, either(inCols, equal(x, across))), GRID)
  const [row, col] = [gather(y, shown), gather(x, shown)]
  const [tileRow, tileCol] = [div(row, side), div(col, side)]
  const number = add(add(mul(tileRow, tileCols), tileCol), 1)
  const within = add(mul(sub(row, mul(tileRow, side)), side), sub(col, mul(tileCol, side)))
  const grid = where(equal(col, across), NEWLINE, add(mul(number, side * side), within))
  const whole = ints(
    graph,
    Array.from({ length: side * side }, (_, i) => i),
    (i) => i,
  )
  return reshape(concat([whole, grid], 0), [sum([side * side, GRID])])
}

/**
 * Index of the pinpoint, in whole numbers. transformers rounds twice where these divide exactly, which can decide between
 * pinpoints of different numbers of tiles; those of another number than the picture has are out of the question.
 */
function bestPinpoint(tiles: Value, height: Value, width: Value, { tile, pinpoints }: TileSizes): Value {
  const { graph } = tiles
  const count = add(reduceMax(arange(tiles, 0)), 1)
  const [high, wide] = [ints(graph, pinpoints, ([h]) => h), ints(graph, pinpoints, ([, w]) => w)]
  const byWidth = less(mul(wide, height), mul(high, width))
  const fittedWidth = where(byWidth, wide, div(mul(high, width), height))
  const fittedHeight = where(byWidth, div(mul(wide, height), width), high)
  const kept = minimum(mul(fittedWidth, fittedHeight), mul(height, width))
  const wasted = sub(mul(high, wide), kept)
  const own = equal(
    ints(graph, pinpoints, ([h, w]) => 1 + (h / tile) * (w / tile)),
    count,
  )
  const possible = where(own, kept, -1)
  return argmax(where(equal(possible, reduceMax(possible)), neg(wasted), NEVER))
}

const either = (a: Value, b: Value): Value => logicalNot(logicalAnd(logicalNot(a), logicalNot(b)))

function ints<T>(graph: Graph, of: readonly T[], value: (x: T) => number): Value {
  return constant(graph, i32(Int32Array.from(of, value), [of.length]))
}
