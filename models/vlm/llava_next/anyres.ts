/** The sizes of LLaVA-NeXT's "any resolution": which pinpoint a picture is fitted into, and which features remain. */

/** Height and width, of pixels or of features. */
export type Size = readonly [height: number, width: number]

/** The pinpoint that keeps most of the picture's pixels, then the one that wastes least (`select_best_resolution`). */
export function bestPinpoint([height, width]: Size, pinpoints: readonly Size[]): Size {
  let best: { readonly size: Size; readonly kept: number; readonly wasted: number } | undefined
  for (const size of pinpoints) {
    const scale = Math.min(size[1] / width, size[0] / height)
    const kept = Math.min(Math.trunc(width * scale) * Math.trunc(height * scale), width * height)
    const wasted = size[0] * size[1] - kept
    if (kept > (best?.kept ?? 0) || (best && kept === best.kept && wasted < best.wasted)) best = { size, kept, wasted }
  }
  if (!best) throw new RangeError(`a picture of ${width}×${height} pixels fits into no pinpoint`)
  return best.size
}

/** Largest size of the picture's shape inside the pinpoint (`get_patch_output_size`). */
export function fittedSize([height, width]: Size, [targetHeight, targetWidth]: Size): Size {
  const [byWidth, byHeight] = [targetWidth / width, targetHeight / height]
  return byWidth < byHeight
    ? [Math.min(Math.ceil(height * byWidth), targetHeight), targetWidth]
    : [targetHeight, Math.min(Math.ceil(width * byHeight), targetWidth)]
}

/** The part of a grid of features that shows the picture, not its margins (`unpad_image`). */
export interface Window {
  readonly top: number
  readonly left: number
  readonly height: number
  readonly width: number
}

export function unpadded([height, width]: Size, [rows, cols]: Size): Window {
  if (width / height > cols / rows) {
    const top = Math.floor((rows - rounded(height * (cols / width))) / 2)
    return { top, left: 0, height: rows - 2 * top, width: cols }
  }
  const left = Math.floor((cols - rounded(width * (rows / height))) / 2)
  return { top: 0, left, height: rows, width: cols - 2 * left }
}

/** Python's `int(round(x, 7))`. */
const rounded = (x: number): number => Math.trunc(Number(x.toFixed(7)))

/** Stands for `image_newline` in `featureOrder`. */
export const NEWLINE = -1

/**
 * The features of a picture in the order of its placeholders: the base tile, then the unpadded grid row by row, a newline
 * behind each row. Numbers are rows of the features of its tiles: tile · side² + patch, the base tile first.
 *
 * @param grid tiles in rows and columns.
 * @param side patches a side of a tile.
 */
export function featureOrder(size: Size, [tileRows, tileCols]: Size, side: number): Int32Array {
  const order = Array.from({ length: side * side }, (_, i) => i)
  const { top, left, height, width } = unpadded(size, [tileRows * side, tileCols * side])
  for (let y = top; y < top + height; y++) {
    for (let x = left; x < left + width; x++) {
      const tile = 1 + Math.floor(y / side) * tileCols + Math.floor(x / side)
      order.push(tile * side * side + (y % side) * side + (x % side))
    }
    order.push(NEWLINE)
  }
  return Int32Array.from(order)
}
