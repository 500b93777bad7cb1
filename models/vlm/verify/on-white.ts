/** Pictures with an alpha channel as the reference sees them when it is handed the decoded picture: composed on white. */
import sharp from 'sharp'
import { decodeImage, type RgbImage } from '../../io/image.ts'

/** Pillow's `alpha_composite` over opaque white, in its integer arithmetic. */
export async function decodeOnWhite(bytes: Buffer): Promise<RgbImage> {
  const { data, info } = await sharp(bytes)
    .autoOrient()
    .toColourspace('srgb')
    .raw()
    .toBuffer({ resolveWithObject: true })
  if (info.channels !== 4) return decodeImage(bytes)
  const rgb = new Uint8Array(info.width * info.height * 3)
  for (let i = 0, o = 0; i < data.length; i += 4) {
    const alpha = data[i + 3]!
    for (let c = 0; c < 3; c++, o++) {
      const mixed = (data[i + c]! * alpha + 255 * (255 - alpha) + 128) * 128
      rgb[o] = (((mixed >> 8) + mixed) >> 8) >> 7
    }
  }
  return { width: info.width, height: info.height, data: rgb }
}
