/** The pictures of a goldens folder: what `images.json` says of them, and the product's decoder on them. */
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import sharp from 'sharp'
import { decodeImage } from '../../models/io/image.ts'
import type { Verified } from '../../models/losses/verify-grpo.ts'
import { checksOf, meanDifference, TOLERANCE } from '../../models/vlm/verify/checks.ts'
import type { GoldenImages } from '../../models/vlm/verify/golden-images.ts'
import { sha256 } from './published.ts'

/** Pillow's modes by number of channels. */
const MODES: Readonly<Record<number, string>> = { 1: 'L', 3: 'RGB', 4: 'RGBA' }

/** Compares every picture; decoders of JPEG may differ by half a level in the mean. */
export async function* verifyImages({ dir, images }: GoldenImages): AsyncGenerator<Verified> {
  for (const [name, golden] of Object.entries(images)) {
    const check = checksOf(name)
    const file = join(dir, name)
    yield check.same('sha256', [await sha256(file)], [golden.sha256])
    const { width, height, channels, orientation = 1, format } = await sharp(file).metadata()
    const { stored, decoded } = golden
    yield check.same('stored size', [width, height], [stored.width, stored.height])
    yield check.same('stored mode', [MODES[channels] ?? null], [stored.mode])
    yield check.same('exif_orientation', [orientation], [golden.exif_orientation])
    const own = await decodeImage(await readFile(file), { name })
    yield check.same(
      'decoded size and mode',
      [own.width, own.height, 'RGB'],
      [decoded.width, decoded.height, decoded.mode],
    )
    if (golden.decoded_png === undefined) continue
    const reference = await decodeImage(await readFile(join(dir, golden.decoded_png)), { name: golden.decoded_png })
    const tolerance = format === 'jpeg' ? TOLERANCE.decoderLevels : 0
    yield check.within('decoded pixels', meanDifference(own.data, reference.data), tolerance)
  }
}
