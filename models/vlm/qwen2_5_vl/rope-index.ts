/** Positions of prompt tokens on three axes (M-RoPE): `get_rope_index` of transformers' Qwen2_5_VLModel, for pictures. */
import type { PrefixPositions } from '../../tree/pack.ts'
import type { TokenGrid } from './patches.ts'

/**
 * Text counts on from the largest position so far, equally on all axes (time, row, column). The tokens of a picture share
 * their time and have the row and column of their place, all from where the picture starts.
 *
 * @param grids those of the pictures in order; throws a RangeError when the placeholders do not match them.
 */
export function prefixPositions(
  ids: readonly number[],
  grids: readonly TokenGrid[],
  imageToken: number,
): PrefixPositions {
  const values = new Int32Array(3 * ids.length)
  let next = 0
  let picture = 0
  const put = (i: number, ...position: readonly [time: number, row: number, column: number]): void =>
    position.forEach((p, axis) => (values[axis * ids.length + i] = next + p))
  for (let i = 0; i < ids.length;) {
    if (ids[i] !== imageToken) {
      put(i++, 0, 0, 0)
      next++
      continue
    }
    const { rows, cols } = grids[picture++] ?? { rows: 0, cols: 0 }
    const own = ids.slice(i, i + rows * cols)
    if (own.length === 0 || own.length < rows * cols || own.some((id) => id !== imageToken))
      throw new RangeError(`the placeholders of picture ${picture} do not match its ${rows}×${cols} tokens`)
    for (let row = 0; row < rows; row++) for (let column = 0; column < cols; column++) put(i++, 0, row, column)
    next += Math.max(rows, cols)
  }
  if (picture !== grids.length) throw new RangeError(`${grids.length} pictures, but ${picture} in the prompt`)
  return { axes: 3, values, next }
}
