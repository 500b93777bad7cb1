/** The smallest golden checkpoint, opened for tests of the engine: every weight trainable, no token banned. */
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { GoldenImages } from '../../models/vlm/smolvlm/verify/golden-images.ts'
import type { Pixels } from '../../models/vlm/smolvlm/network.ts'
import { openVariant, type Variant } from '../../models/vlm/smolvlm/verify/variant.ts'
import type { HostTensor } from '../../models/tensor.ts'
import { goldenImage, goldens } from './goldens.ts'

export interface TinyVariant extends Variant {
  /** Ids up to the end of a picture; every picture is one tile. */
  readonly prefix: readonly number[]
  readonly textPrefix: readonly number[]
  /** All pictures, one tile each; picture i has the features from `firstFeature(i)`. */
  readonly pixels: Pixels
  readonly features: HostTensor<'float32'>
  firstFeature(picture: number): number
}

const PICTURES = ['square64.png', 'banner100x60.png', 'noise48x40.png']
/** Ids below are neither special tokens nor placeholders. */
export const WORDS = 590

export async function openTiny(): Promise<TinyVariant> {
  const images = await GoldenImages.open(join(goldens, 'images'))
  const variant = await openVariant(join(goldens, 'smolvlm/tiny64'), images, { threads: 1 })
  const { processor } = variant
  const tiles = await Promise.all(PICTURES.map(async (p) => processor.processImage(await readFile(goldenImage(p)))))
  const { height, width } = tiles[0]!
  const data = Float32Array.from(tiles.flatMap((t) => [...t.pixelValues]))
  const pixels = { data, tiles: tiles.length, height, width }
  return {
    ...variant,
    prefix: processor.splitPrompt('a', { rows: 0, cols: 0 }).prefix,
    textPrefix: processor.splitPrompt('a', null).prefix,
    pixels,
    features: await variant.network.features(pixels),
    firstFeature: (picture) => picture * processor.imageSeqLen,
  }
}
