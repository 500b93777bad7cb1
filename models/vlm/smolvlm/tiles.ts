/** Picture → tiles → normalised pixels, as Hugging Face's Idefics3ImageProcessor (Pillow route) does it. */
import type { RgbImage } from '../../io/image.ts'
import { resize, type Filter } from '../../io/pil-resize.ts'
import { type Frame, normalise, type Normalisation, writePlanes } from '../../io/pixels.ts'

export interface ImageSettings extends Normalisation {
  /** Resize first: the longest edge to this many pixels, or to a fixed size; null: not at all. */
  readonly size: { readonly longestEdge: number } | { readonly height: number; readonly width: number } | null
  /** Pixels a side of a tile. */
  readonly tile: number
  readonly split: boolean
  readonly filter: Filter
}

/** Rows and columns of tiles before the global one; 0 × 0 when the picture is one tile. */
export interface TileGrid {
  readonly rows: number
  readonly cols: number
}

/** Tiles of one picture, row by row, the global tile last. `uint8` and `pixelValues` are [tiles, 3, tile, tile]. */
export interface TiledImage extends TileGrid {
  readonly tiles: number
  readonly uint8: Uint8Array
  readonly pixelValues: Float32Array
}

/** Absolute maximum of a side after the first resize. */
export const maxSide = 4096

/** All steps of the image processor. Every tile is square, so no padding or attention mask is ever needed. */
export function tileImage(image: RgbImage, settings: ImageSettings): TiledImage {
  const { tile } = settings
  const sized = resizeFirst(image, settings)
  const { grid, frames } = settings.split ? split(sized, settings) : { grid: single, frames: [square(sized, settings)] }
  const plane = tile * tile
  const uint8 = new Uint8Array(frames.length * 3 * plane)
  frames.forEach((frame, i) => writePlanes(frame, tile, tile, uint8.subarray(i * 3 * plane, (i + 1) * 3 * plane)))
  return { ...grid, tiles: frames.length, uint8, pixelValues: normalise(uint8, plane, settings) }
}

/** Tiles of a picture of this size, from arithmetic alone. */
export function mostTiles(image: Size, settings: ImageSettings): number {
  if (!settings.split) return 1
  const { width, height } = multiplesOf(settings.tile, sizeFirst(image, settings.size))
  const count = (width / settings.tile) * (height / settings.tile)
  return count === 1 ? 1 : count + 1
}

const single: TileGrid = { rows: 0, cols: 0 }

function resizeFirst(image: RgbImage, { size, filter }: ImageSettings): RgbImage {
  const { width, height } = sizeFirst(image, size)
  return resize(image, width, height, filter)
}

function sizeFirst(image: Size, size: ImageSettings['size']): Size {
  if (size === null) return image
  return 'height' in size ? size : belowMaxSide(longestEdge(image, size.longestEdge))
}

interface Size {
  readonly width: number
  readonly height: number
}

function longestEdge({ width, height }: Size, longest: number): Size {
  const aspect = width / height
  const even = (side: number) => Math.max(side + (side % 2), 1)
  return width >= height
    ? { width: longest, height: even(Math.trunc(longest / aspect)) }
    : { width: even(Math.trunc(longest * aspect)), height: longest }
}

function belowMaxSide({ width, height }: Size): Size {
  if (Math.max(width, height) <= maxSide) return { width, height }
  const aspect = width / height
  return width >= height
    ? { width: maxSide, height: Math.max(Math.trunc(maxSide / aspect), 1) }
    : { width: Math.max(Math.trunc(maxSide * aspect), 1), height: maxSide }
}

function square(image: RgbImage, { tile, filter }: ImageSettings): Frame {
  return { image: resize(image, tile, tile, filter), x: 0, y: 0 }
}

function split(image: RgbImage, settings: ImageSettings): { grid: TileGrid; frames: Frame[] } {
  const { tile, filter } = settings
  const { width, height } = multiplesOf(tile, image)
  const whole = resize(image, width, height, filter)
  const grid = { rows: height / tile, cols: width / tile }
  if (grid.rows === 1 && grid.cols === 1) return { grid: single, frames: [{ image: whole, x: 0, y: 0 }] }
  const frames: Frame[] = []
  for (let y = 0; y < height; y += tile) for (let x = 0; x < width; x += tile) frames.push({ image: whole, x, y })
  return { grid, frames: [...frames, square(whole, settings)] }
}

function multiplesOf(tile: number, { width, height }: Size): Size {
  const up = (side: number) => Math.ceil(side / tile) * tile
  const aspect = width / height
  return width >= height
    ? { width: up(width), height: up(Math.trunc(up(width) / aspect)) }
    : { width: up(Math.trunc(up(height) * aspect)), height: up(height) }
}
