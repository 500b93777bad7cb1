/** Positions of prompt tokens on three axes (M-RoPE): `get_rope_index` of transformers' Qwen2_5_VLModel, for pictures. */
import type { TokenGrid } from './patches.ts'

export interface RopeIndex {
  /** Time, row and column, each as long as the prompt. */
  readonly positions: readonly [time: number[], row: number[], column: number[]]
  /** Position of the next token, on all axes. */
  readonly next: number
}

/**
 * Text counts on from the largest position so far, equally on all axes. The tokens of a picture share their time and
 * have the row and column of their place, all from where the picture starts.
 *
 * @param grids those of the pictures in order; throws a RangeError when the placeholders do not match them.
 */
export function ropeIndex(ids: readonly number[], grids: readonly TokenGrid[], imageToken: number): RopeIndex {
  const [time, row, column]: [number[], number[], number[]] = [[], [], []]
  let next = 0
  let picture = 0
  for (let i = 0; i < ids.length;) {
    if (ids[i] !== imageToken) {
      for (const axis of [time, row, column]) axis.push(next)
      next++
      i++
      continue
    }
    const { rows, cols } = grids[picture++] ?? { rows: 0, cols: 0 }
    const own = ids.slice(i, i + rows * cols)
    if (own.length === 0 || own.length < rows * cols || own.some((id) => id !== imageToken))
      throw new RangeError(`the placeholders of picture ${picture} do not match its ${rows}×${cols} tokens`)
    for (let y = 0; y < rows; y++)
      for (let x = 0; x < cols; x++) {
        time.push(next)
        row.push(next + y)
        column.push(next + x)
      }
    next += Math.max(rows, cols)
    i += rows * cols
  }
  if (picture !== grids.length) throw new RangeError(`${grids.length} pictures, but ${picture} in the prompt`)
  return { positions: [time, row, column], next }
}

/** What has to be added to the number of tokens to get the position of the next one. */
export const ropeDelta = ({ positions, next }: RopeIndex): number => next - positions[0].length
