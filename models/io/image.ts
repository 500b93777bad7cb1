/** Encoded pictures → RGB pixels, with the conventions of Hugging Face's `load_image`. */
import sharp from 'sharp'
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
    super(`image ${image}: ${reason}`, options)
    this.name = 'ImageError'
    this.image = image
  }
}

/** Pillow's own limit against decompression bombs: 512 MiB of decoded RGB. */
export const maxPixels = 178_956_970

/**
 * Decode any format that sharp reads (first page or frame). As Hugging Face does for files: EXIF orientation is applied,
 * the alpha channel is dropped without compositing, gray becomes RGB, colour profiles are ignored. One difference: 16-bit
 * gray is scaled to 8 bits, where Pillow clips it to white.
 */
export async function decodeImage(
  bytes: Uint8Array,
  { name = 'of unknown name', limitPixels = maxPixels }: { name?: string; limitPixels?: number } = {},
): Promise<RgbImage> {
  if (bytes.length === 0) throw new ImageError(name, 'the file is empty')
  try {
    const input = sharp(bytes, { limitInputPixels: limitPixels, ignoreIcc: true, failOn: 'error' })
    const { space } = await input.metadata()
    const upright = input.autoOrient()
    const colours =
      space === 'cmyk'
        ? upright.pipelineColourspace('cmyk').toColourspace('cmyk')
        : upright.toColourspace('srgb').removeAlpha()
    const { data, info } = await colours.raw({ depth: 'uchar' }).toBuffer({ resolveWithObject: true })
    return { width: info.width, height: info.height, data: asRgb(data, info.channels) }
  } catch (cause) {
    const reason = reasonOf(cause)
    const remedy = /pixel limit/i.test(reason) ? `has more than ${limitPixels} pixels; shrink it first` : reason
    throw new ImageError(name, remedy, { cause })
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
