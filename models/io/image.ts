/** Encoded pictures → RGB pixels, with the conventions of Hugging Face's `load_image`. */
import sharp, { type Sharp } from 'sharp'
import { printable } from './checkpoint-error.ts'
import { reasonOf } from './json-file.ts'

/** 8-bit RGB; `data` is [height, width, 3] row-major. */
export interface RgbImage {
  readonly width: number
  readonly height: number
  readonly data: Uint8Array
}

/** A picture that cannot be decoded. `image` is the name that the caller gave it. */
export class ImageError extends Error {
  readonly image: string

  constructor(image: string, reason: string, options?: ErrorOptions) {
    super(`image ${printable(image, 300)}: ${reason}`, options)
    this.name = 'ImageError'
    this.image = image
  }
}

/** Pillow's own limit against decompression bombs: 512 MiB of decoded RGB. */
export const maxPixels = 178_956_970

/** Pictures that may be decoded at the same time, in pixels; a larger one is decoded alone. */
const pixelsAtOnce = 50_000_000
/** Seconds for one picture: only a hostile one takes as long. */
const mostSeconds = 60

/** Bytes of a file that `foreignKind` wants to see. */
export const headBytes = 1024

/**
 * Why a file that begins so is not decoded, with a remedy; null for what sharp may see. Drawings (SVG, plain or packed)
 * are programs: one of a few hundred bytes can take minutes that no limit can stop, and it may name other files.
 */
export function foreignKind(head: Uint8Array): string | null {
  const [first, second] = head
  const packed = (first === 0x1f && second === 0x8b) || (first === 0x78 && [0x01, 0x5e, 0x9c, 0xda].includes(second!))
  if (packed) return 'packed data, not a picture; unpack it, or convert a drawing to PNG'
  const text = new TextDecoder().decode(head.subarray(0, headBytes)).trimStart()
  if (!text.startsWith('<')) return null
  return /<([a-z]+:)?svg/i.test(text)
    ? 'a drawing (SVG), not a picture; convert it to PNG'
    : 'markup such as a web page, not a picture; download it again'
}

/**
 * Decode any format that sharp reads but SVG (first page or frame). As Hugging Face does for files: EXIF orientation is applied,
 * the alpha channel is dropped without compositing, gray becomes RGB, colour profiles are ignored. One difference: 16-bit
 * gray is scaled to 8 bits, where Pillow clips it to white.
 */
export async function decodeImage(
  bytes: Uint8Array,
  { name = 'of unknown name', limitPixels = maxPixels }: { name?: string; limitPixels?: number } = {},
): Promise<RgbImage> {
  if (bytes.length === 0) throw new ImageError(name, 'the file is empty; give another picture')
  const foreign = foreignKind(bytes)
  if (foreign !== null) throw new ImageError(name, foreign)
  try {
    const input = sharp(bytes, { limitInputPixels: limitPixels, ignoreIcc: true, failOn: 'error' })
    const { space, width, height } = await input.timeout({ seconds: mostSeconds }).metadata()
    return await inTurn(width * height, () => decode(input, space))
  } catch (cause) {
    throw new ImageError(name, reasonFor(cause, limitPixels), { cause })
  }
}

async function decode(input: Sharp, space: string | undefined): Promise<RgbImage> {
  const upright = input.autoOrient()
  const colours =
    space === 'cmyk'
      ? upright.pipelineColourspace('cmyk').toColourspace('cmyk')
      : upright.toColourspace('srgb').removeAlpha()
  const { data, info } = await colours.raw({ depth: 'uchar' }).toBuffer({ resolveWithObject: true })
  return { width: info.width, height: info.height, data: asRgb(data, info.channels) }
}

/** One line of what libvips says, with what to do. */
function reasonFor(cause: unknown, limitPixels: number): string {
  const reason = printable(reasonOf(cause), 300)
  if (/pixel limit/i.test(reason)) return `has more than ${limitPixels} pixels; shrink it first`
  if (/unsupported image format/i.test(reason)) return `${UNKNOWN} (${reason})`
  return `${reason}; give another picture`
}

const UNKNOWN = 'not a picture in a known format; convert it to PNG or JPEG'

let inFlight = 0
const waiting: { readonly pixels: number; readonly start: () => void }[] = []

/** Runs a job when its pixels fit beside those of the others, in the order of the calls. */
async function inTurn<T>(pixels: number, job: () => Promise<T>): Promise<T> {
  const fits = inFlight === 0 || inFlight + pixels <= pixelsAtOnce
  if (waiting.length > 0 || !fits) await new Promise<void>((start) => waiting.push({ pixels, start }))
  else inFlight += pixels
  try {
    return await job()
  } finally {
    inFlight -= pixels
    for (let next = waiting[0]; next && (inFlight === 0 || inFlight + next.pixels <= pixelsAtOnce); next = waiting[0]) {
      inFlight += next.pixels
      waiting.shift()
      next.start()
    }
  }
}

function asRgb(data: Uint8Array, channels: number): Uint8Array {
  switch (channels) {
    case 3:
      return data
    case 4:
      return cmykToRgb(data)
    default:
      throw new RangeError(`${channels} channels after conversion`)
  }
}

/** Pillow's conversion, without a profile: each ink darkens the white that black leaves. */
function cmykToRgb(cmyk: Uint8Array): Uint8Array {
  const rgb = new Uint8Array((cmyk.length / 4) * 3)
  for (let i = 0, o = 0; i < cmyk.length; i += 4) {
    const white = 255 - cmyk[i + 3]!
    for (let ink = 0; ink < 3; ink++, o++) {
      const product = cmyk[i + ink]! * white + 128
      rgb[o] = white - (((product >> 8) + product) >> 8)
    }
  }
  return rgb
}
