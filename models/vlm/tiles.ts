/** Pixels of square or rectangular tiles, the vision input of families that cut pictures into tiles of one size. */
import { f32, type HostTensor } from '../tensor.ts'
import type { PictureSizes } from '../memory/estimate.ts'
import type { Picture, VisionInput } from './family.ts'
import { stackRows } from './stack.ts'

/** Values of a pass of the vision tower: 64 tiles of 64 × 64, fewer of larger ones. */
const PASS_VALUES = 64 * 3 * 64 * 64

/** The tiles of all pictures, float32 [tiles, 3, height, width]. */
export function joinTiles(pictures: readonly Picture[]): HostTensor<'float32'> {
  return stackRows(pictures.map(pixelsOf))
}

/** `pixels` of a picture. Throws when it has none, or of another type. */
export function pixelsOf({ inputs }: Picture): HostTensor<'float32'> {
  const pixels = inputs['pixels']
  if (pixels?.dtype !== 'float32') throw new TypeError('the picture has no float32 pixels')
  return pixels as HostTensor<'float32'>
}

/** Tiles as one pass; the size of a tile decides the graph. */
export function tileInput(pixels: HostTensor<'float32'>): VisionInput {
  return { graph: pixels.dims.slice(2).join('x'), feeds: { pixels } }
}

/** Tiles of a size that go through the vision tower at once, at least one. */
export const mostTiles = (height: number, width: number): number =>
  Math.max(1, Math.floor(PASS_VALUES / (3 * height * width)))

/** Sizes of a picture of square tiles, each of which goes through the vision tower alone. */
export function tileSizes(side: number, patches: number, tiles: number): Omit<PictureSizes, 'features'> {
  return {
    values: tiles * 3 * side ** 2,
    patches: tiles * patches,
    passPatches: mostTiles(side, side) * patches,
    attended: patches,
    attendedTrained: patches,
  }
}

/** Tiles as passes of bounded memory. */
export function tilePasses({ data, dims }: HostTensor<'float32'>): VisionInput[] {
  const [tiles, ...rest] = dims as [number, number, number, number]
  const size = data.length / tiles
  const batch = mostTiles(rest[1], rest[2])
  const passes: VisionInput[] = []
  for (let at = 0; at < tiles; at += batch) {
    const count = Math.min(batch, tiles - at)
    passes.push(tileInput(f32(data.subarray(at * size, (at + count) * size), [count, ...rest])))
  }
  return passes
}
