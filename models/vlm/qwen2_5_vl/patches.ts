/** Picture → flat patches, as Hugging Face's Qwen2VLImageProcessor (Pillow route) makes them. */
import type { RgbImage } from '../../io/image.ts'
import { type Filter, resize } from '../../io/pil-resize.ts'
import { normalise, type Normalisation } from '../../io/pixels.ts'
import { type PixelBounds, smartResize } from './smart-resize.ts'

export interface ImageSettings extends Normalisation {
  /** Null: pictures keep their size, which must fit. */
  readonly bounds: PixelBounds | null
  readonly filter: Filter
  readonly patch: number
  readonly temporalPatch: number
  readonly merge: number
}

/** Image tokens of a picture along each side; each is a square of merge² patches. */
export interface TokenGrid {
  readonly rows: number
  readonly cols: number
}

/**
 * Patches of one picture. `uint8` and `pixelValues` are [rows·cols, merge², 3·temporal·patch²] (channel, frame, y, x);
 * image tokens run row by row, and so do the patches in each.
 */
export interface PatchedImage extends TokenGrid {
  readonly uint8: Uint8Array
  readonly pixelValues: Float32Array
}

/** Most image tokens of a picture. */
export const MOST_TOKENS = 8192

/** All steps of the image processor. Throws a RangeError for a picture that cannot be resized. */
export function patchImage(image: RgbImage, settings: ImageSettings): PatchedImage {
  const side = settings.patch * settings.merge
  const sized = resized(image, settings)
  const grid = { rows: sized.height / side, cols: sized.width / side }
  const uint8 = cutPatches(sized, grid, settings)
  return { ...grid, uint8, pixelValues: normalise(uint8, settings.temporalPatch * settings.patch ** 2, settings) }
}

function resized(image: RgbImage, { bounds, filter, patch, merge }: ImageSettings): RgbImage {
  const factor = patch * merge
  if (bounds) {
    const { width, height } = smartResize(image, factor, bounds)
    checkTokens((width / factor) * (height / factor))
    return resize(image, width, height, filter)
  }
  if (image.width % factor !== 0 || image.height % factor !== 0)
    throw new RangeError(`${image.width}×${image.height} is no multiple of ${factor}, and do_resize is off`)
  checkTokens((image.width / factor) * (image.height / factor))
  return image
}

/** Published checkpoints allow pictures of 16,384 image tokens, among which no attention fits into memory. */
function checkTokens(tokens: number): void {
  if (tokens > MOST_TOKENS)
    throw new RangeError(`${tokens} image tokens, at most ${MOST_TOKENS} fit: lower max_pixels in the image settings`)
}

function cutPatches(image: RgbImage, grid: TokenGrid, settings: ImageSettings): Uint8Array {
  const { patch, temporalPatch, merge } = settings
  const size = 3 * temporalPatch * patch * patch
  const out = new Uint8Array(grid.rows * grid.cols * merge ** 2 * size)
  patchesInOrder(grid, merge).forEach(({ row, col }, i) => {
    const own = out.subarray(i * size, (i + 1) * size)
    writePatch(image, row * patch, col * patch, settings, own)
  })
  return out
}

/** Interleaved RGB → channel, frame, y, x. */
function writePatch(image: RgbImage, top: number, left: number, settings: ImageSettings, out: Uint8Array): void {
  const { patch, temporalPatch } = settings
  const { width, data } = image
  const plane = patch * patch
  for (let channel = 0; channel < 3; channel++) {
    const start = channel * temporalPatch * plane
    for (let y = 0, o = start; y < patch; y++) {
      let i = ((top + y) * width + left) * 3 + channel
      for (let x = 0; x < patch; x++, o++, i += 3) out[o] = data[i]!
    }
    for (let frame = 1; frame < temporalPatch; frame++) out.copyWithin(start + frame * plane, start, start + plane)
  }
}

/** Row and column of every patch in the order of the sequence. */
export function patchesInOrder({ rows, cols }: TokenGrid, merge: number): { row: number; col: number }[] {
  const all: { row: number; col: number }[] = []
  for (let row = 0; row < rows; row++)
    for (let col = 0; col < cols; col++)
      for (let y = 0; y < merge; y++)
        for (let x = 0; x < merge; x++) all.push({ row: row * merge + y, col: col * merge + x })
  return all
}
