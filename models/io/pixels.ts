/** RGB images as normalised planes, as the image processors of transformers make them. */
import type { RgbImage } from './image.ts'

/** `value · rescale`, then `(value − mean) / std`; a step that is null is left out. */
export interface Normalisation {
  readonly rescale: number | null
  readonly normalize: { readonly mean: readonly number[]; readonly std: readonly number[] } | null
}

/** A window of an image. */
export interface Frame {
  readonly image: RgbImage
  readonly x: number
  readonly y: number
}

/** Copies `width` × `height` pixels of interleaved RGB into `out`, uint8 [3, height, width]. */
export function writePlanes({ image, x, y }: Frame, width: number, height: number, out: Uint8Array): void {
  const { data } = image
  const plane = width * height
  for (let row = 0, o = 0; row < height; row++) {
    let i = ((y + row) * image.width + x) * 3
    for (let col = 0; col < width; col++, o++, i += 3) {
      out[o] = data[i]!
      out[plane + o] = data[i + 1]!
      out[2 * plane + o] = data[i + 2]!
    }
  }
}

/** uint8 [..., 3, plane] in float32 arithmetic, through a table of the 256 levels per channel. */
export function normalise(uint8: Uint8Array, plane: number, { rescale, normalize }: Normalisation): Float32Array {
  const tables = [0, 1, 2].map((channel) =>
    Float32Array.from({ length: 256 }, (_, level) => {
      const value = rescale === null ? level : Math.fround(level * rescale)
      if (normalize === null) return value
      const [mean, std] = [Math.fround(normalize.mean[channel]!), Math.fround(normalize.std[channel]!)]
      return Math.fround(value - mean) / std
    }),
  )
  const out = new Float32Array(uint8.length)
  for (let start = 0, p = 0; start < uint8.length; start += plane, p++) {
    const table = tables[p % 3]!
    for (let i = start; i < start + plane; i++) out[i] = table[uint8[i]!]!
  }
  return out
}
