/** Scenes → RGB pixels: SVG drawn by sharp (librsvg), many scenes to a sheet, because a document costs more than a tile. */
import sharp from 'sharp'
import { drawScene, IMAGE_SIZE } from './draw.ts'
import { degrade } from './pixels.ts'
import { Random } from './random.ts'
import type { Scene } from './scene.ts'

export const DOMAINS = ['clean', 'shifted'] as const
/** `clean`: what the tiny model is pretrained on. `shifted`: what it has never seen and is to evolve on. */
export type Domain = (typeof DOMAINS)[number]

/** Severity of a shifted picture is uniform in this range, [0, 1]. */
export type SeverityRange = readonly [low: number, high: number]
export const DEFAULT_SEVERITY: SeverityRange = [0.1, 0.8]

export interface RenderOptions {
  readonly domain: Domain
  readonly seed: number
  /** Default `DEFAULT_SEVERITY`; ignored by the clean domain. */
  readonly severity?: SeverityRange
  /** Number of the first scene: picture i depends on (seed, first + i) alone. */
  readonly first?: number
}

/** Tiles of a sheet, and of one of its rows. */
const SHEET = 256
const COLUMNS = 16
const BYTES = IMAGE_SIZE * IMAGE_SIZE * 3
/** Sheets under way at once: sharp works off the JS thread. */
const PARALLEL = 3

/** Renders scenes to uint8 [n, 64, 64, 3]. Equal arguments give equal pixels (for one version of sharp). */
export async function renderScenes(scenes: readonly Scene[], options: RenderOptions): Promise<Uint8Array> {
  const first = options.first ?? 0
  const end = first + scenes.length
  const pixels = new Uint8Array(scenes.length * BYTES)
  // A picture keeps its place on its sheet whatever the batch: antialiasing may round differently in another place.
  const sheets = range(Math.floor(first / SHEET), Math.ceil(end / SHEET)).values()
  const work = async (): Promise<void> => {
    for (const sheet of sheets) {
      const tiles = range(Math.max(first, sheet * SHEET), Math.min(end, (sheet + 1) * SHEET)).map((index) =>
        tileOf(scenes[index - first] as Scene, index, options, pictureAt(pixels, index - first)),
      )
      await renderSheet(tiles)
    }
  }
  await Promise.all(Array.from({ length: PARALLEL }, work))
  return pixels
}

/** PNG file of one picture, uint8 [64, 64, 3]. */
export function encodePng(pixels: Uint8Array): Promise<Buffer> {
  if (pixels.length !== BYTES) throw new RangeError(`a picture has ${BYTES} bytes, got ${pixels.length}`)
  return sharp(pixels, { raw: { width: IMAGE_SIZE, height: IMAGE_SIZE, channels: 3 } })
    .png({ compressionLevel: 3 })
    .toBuffer()
}

/** The i-th picture of a batch, without copying. */
export function pictureAt(pixels: Uint8Array, i: number): Uint8Array {
  return pixels.subarray(i * BYTES, (i + 1) * BYTES)
}

interface Tile {
  readonly scene: Scene
  readonly x: number
  readonly y: number
  readonly random: Random
  readonly severity: number
  /** Where the pixels go. */
  readonly picture: Uint8Array
}

function tileOf(scene: Scene, index: number, options: RenderOptions, picture: Uint8Array): Tile {
  const random = new Random(options.seed, 'look', options.domain, index)
  const [low, high] = options.severity ?? DEFAULT_SEVERITY
  const severity = options.domain === 'clean' ? 0 : random.uniform(low, high)
  const [x, y] = [index % COLUMNS, Math.floor((index % SHEET) / COLUMNS)]
  return { scene, x: x * IMAGE_SIZE, y: y * IMAGE_SIZE, random, severity, picture }
}

async function renderSheet(tiles: readonly Tile[]): Promise<void> {
  const width = COLUMNS * IMAGE_SIZE
  const height = Math.max(...tiles.map((tile) => tile.y)) + IMAGE_SIZE
  const drawn = tiles.map(
    ({ scene, x, y, random, severity }, i) =>
      `<svg x="${x}" y="${y}" width="${IMAGE_SIZE}" height="${IMAGE_SIZE}">` +
      `${drawScene(scene, random, severity, String(i))}</svg>`,
  )
  const svg = `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}">${drawn.join('')}</svg>`
  const sheet = await sharp(Buffer.from(svg)).removeAlpha().raw().toBuffer()
  for (const { x, y, picture, random, severity } of tiles) {
    for (let row = 0; row < IMAGE_SIZE; row++) {
      const from = ((y + row) * width + x) * 3
      picture.set(sheet.subarray(from, from + IMAGE_SIZE * 3), row * IMAGE_SIZE * 3)
    }
    degrade(picture, random, severity)
  }
}

function range(from: number, to: number): number[] {
  return Array.from({ length: Math.max(0, to - from) }, (_, i) => from + i)
}
