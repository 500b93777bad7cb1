/** Attention windows of the vision tower: `get_vision_window_index` of transformers, for pictures. */
import type { TokenGrid } from './patches.ts'

export interface WindowIndex {
  /** Image tokens in the order of windows, each window row by row. */
  readonly order: number[]
  /** Where every window starts and the last one ends, in image tokens. */
  readonly bounds: number[]
}

/**
 * Windows of `side` × `side` image tokens, those at the right and at the bottom cut off by the picture; pictures follow
 * one another.
 */
export function windowIndex(grids: readonly TokenGrid[], side: number): WindowIndex {
  const order: number[] = []
  const bounds = [0]
  let first = 0
  for (const { rows, cols } of grids) {
    for (let top = 0; top < rows; top += side)
      for (let left = 0; left < cols; left += side) {
        for (let y = top; y < Math.min(top + side, rows); y++)
          for (let x = left; x < Math.min(left + side, cols); x++) order.push(first + y * cols + x)
        bounds.push(order.length)
      }
    first += rows * cols
  }
  return { order, bounds }
}
