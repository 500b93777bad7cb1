/** The size that a picture is brought to: `smart_resize` of Qwen2-VL. */

export interface Size {
  readonly width: number
  readonly height: number
}

export interface PixelBounds {
  readonly minPixels: number
  readonly maxPixels: number
}

/** Pictures that are longer than this many times their width cannot be resized sensibly. */
export const MOST_ASPECT = 200

/**
 * Sides divisible by `factor`, as near to the picture's as the bounds on the number of pixels allow, the aspect ratio
 * kept as well as possible. Throws a RangeError above an aspect ratio of 200.
 */
export function smartResize({ width, height }: Size, factor: number, { minPixels, maxPixels }: PixelBounds): Size {
  const aspect = Math.max(width, height) / Math.min(width, height)
  if (aspect > MOST_ASPECT)
    throw new RangeError(`an aspect ratio of ${aspect.toFixed(1)}; at most ${MOST_ASPECT} is possible`)
  const nearest = (side: number) => roundHalfEven(side / factor) * factor
  const pixels = nearest(width) * nearest(height)
  if (pixels > maxPixels) {
    const shrink = Math.sqrt((height * width) / maxPixels)
    const down = (side: number) => Math.max(factor, Math.floor(side / shrink / factor) * factor)
    return { width: down(width), height: down(height) }
  }
  if (pixels < minPixels) {
    const grow = Math.sqrt(minPixels / (height * width))
    const up = (side: number) => Math.ceil((side * grow) / factor) * factor
    return { width: up(width), height: up(height) }
  }
  return { width: nearest(width), height: nearest(height) }
}

/** Python's `round`. */
function roundHalfEven(x: number): number {
  const down = Math.floor(x)
  if (x - down !== 0.5) return Math.round(x)
  return down % 2 === 0 ? down : down + 1
}
