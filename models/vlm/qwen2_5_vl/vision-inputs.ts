/** What the vision tower takes of a batch of pictures: their patches, where these stand, and which see each other. */
import type { Value } from '../../graph/graph.ts'
import { f32, i32, type HostTensor, type TensorMap } from '../../tensor.ts'
import { stackRows } from '../stack.ts'
import { VISION_ROPE_THETA, type VisionConfig } from './config.ts'
import { patchesInOrder, type TokenGrid } from './patches.ts'
import { windowIndex } from './windows.ts'

/** Patches that attend to each other, as `visionFeeds` describes them. */
export interface Groups {
  /** int32 [groups, longest] */
  readonly members: Value
  /** float32 [groups, longest, longest]; null where all groups are full. */
  readonly bias: Value | null
  /** int32 [F, m] */
  readonly cells: Value
}

/** What the tower takes, as `visionFeeds` describes it. */
export interface VisionInputs {
  readonly pixels: Value
  readonly cos: Value
  readonly sin: Value
  readonly windows: Groups
  readonly pictures: Groups
}

/** A picture with m = merge² patches in each of its image tokens. */
export interface PictureInput {
  readonly grid: TokenGrid
  /** float32 [rows·cols, m, 3·temporal·patch²] */
  readonly pixels: HostTensor<'float32'>
}

/**
 * Graph inputs of pictures of any sizes, F image tokens in all, one picture after the other:
 * pixels float32 [F, m, 3·temporal·patch²]; cos and sin float32 [m·F, headDim/2] by patch; and, for windows (`window…`)
 * and whole pictures (`picture…`), the patches of every group, int32 [groups, longest], the sizes of the groups, int32
 * [groups], and the cell of [groups, longest] that holds each patch, int32 [F, m].
 */
export function visionFeeds(vision: VisionConfig, pictures: readonly PictureInput[]): TensorMap {
  const grids = pictures.map((p) => p.grid)
  const tokens = grids.reduce((n, { rows, cols }) => n + rows * cols, 0)
  const perToken = vision.merge ** 2
  const { cos, sin } = rotaryRows(vision, grids)
  const dims = [tokens * perToken, vision.hidden / vision.heads / 2]
  return {
    pixels: stackRows(pictures.map((p) => p.pixels)),
    cos: f32(cos, dims),
    sin: f32(sin, dims),
    ...groupFeeds('window', windowGroups(vision, grids), perToken),
    ...groupFeeds('picture', pictureGroups(grids, perToken), perToken),
  }
}

/** Image tokens along each side of a window. */
export const windowSide = ({ window, merge, patch }: VisionConfig): number => Math.floor(window / merge / patch)

/** Patches by window; those that the picture cuts off are smaller. */
function windowGroups(vision: VisionConfig, grids: readonly TokenGrid[]): number[][] {
  const { order, bounds } = windowIndex(grids, windowSide(vision))
  const perToken = vision.merge ** 2
  return bounds
    .slice(1)
    .map((end, i) =>
      order.slice(bounds[i], end).flatMap((token) => Array.from({ length: perToken }, (_, k) => token * perToken + k)),
    )
}

function pictureGroups(grids: readonly TokenGrid[], perToken: number): number[][] {
  let first = 0
  return grids.map(({ rows, cols }) => {
    const start = first
    const length = rows * cols * perToken
    first += length
    return Array.from({ length }, (_, i) => start + i)
  })
}

/** Short groups are filled up with their first patch; nothing sees or reads it there. */
function groupFeeds(name: string, groups: readonly (readonly number[])[], perToken: number): TensorMap {
  const longest = groups.reduce((n, g) => Math.max(n, g.length), 0)
  const patches = groups.reduce((n, g) => n + g.length, 0)
  const members = new Int32Array(groups.length * longest)
  const cells = new Int32Array(patches)
  groups.forEach((group, g) => {
    members.fill(group[0]!, g * longest, (g + 1) * longest)
    group.forEach((patch, i) => {
      members[g * longest + i] = patch
      cells[patch] = g * longest + i
    })
  })
  const sizes = Int32Array.from(groups, (group) => group.length)
  return {
    [`${name}Members`]: i32(members, [groups.length, longest]),
    [`${name}Sizes`]: i32(sizes, [groups.length]),
    [`${name}Cells`]: i32(cells, [patches / perToken, perToken]),
  }
}

/** Row and column of every patch of all pictures, in the order of the sequence. */
export const patchPlaces = (grids: readonly TokenGrid[], merge: number): { row: number; col: number }[] =>
  grids.flatMap((grid) => patchesInOrder(grid, merge))

/** Half of the angles turn by the row, the others by the column. */
function rotaryRows(vision: VisionConfig, grids: readonly TokenGrid[]): { cos: Float32Array; sin: Float32Array } {
  const places = patchPlaces(grids, vision.merge)
  const most = places.reduce((n, { row, col }) => Math.max(n, row, col), 0)
  const tables = rotaryTables(vision, most + 1)
  const quarter = tables.width
  const rows = (table: Float32Array): Float32Array => {
    const out = new Float32Array(places.length * 2 * quarter)
    places.forEach(({ row, col }, p) => {
      out.set(table.subarray(row * quarter, (row + 1) * quarter), p * 2 * quarter)
      out.set(table.subarray(col * quarter, (col + 1) * quarter), (2 * p + 1) * quarter)
    })
    return out
  }
  return { cos: rows(tables.cos), sin: rows(tables.sin) }
}

/** Angles of a row or a column, [places, width] with width = headDim/4; float32 arithmetic as in transformers. */
export function rotaryTables(
  { hidden, heads }: VisionConfig,
  places: number,
): { readonly cos: Float32Array; readonly sin: Float32Array; readonly width: number } {
  const half = hidden / heads / 2
  const width = half / 2
  const cos = new Float32Array(places * width)
  const sin = new Float32Array(places * width)
  for (let i = 0; i < width; i++) {
    const frequency = Math.fround(1 / Math.fround(VISION_ROPE_THETA ** Math.fround((2 * i) / half)))
    for (let place = 0; place < places; place++) {
      const angle = Math.fround(place * frequency)
      cos[place * width + i] = Math.cos(angle)
      sin[place * width + i] = Math.sin(angle)
    }
  }
  return { cos, sin, width }
}
