/** The smallest golden checkpoint, opened for tests of the engine: every weight trainable, no token banned. */
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { HostTensor } from '../../models/tensor.ts'
import { readPicture } from '../../models/vlm/pictures.ts'
import { joinTiles, tilePasses } from '../../models/vlm/tiles.ts'
import { GoldenImages } from '../../models/vlm/verify/golden-images.ts'
import { openVariant, type Variant } from '../../models/vlm/verify/variant.ts'
import { goldenImage, goldens } from './goldens.ts'

export interface TinyVariant extends Variant {
  /** Ids up to the end of a picture; every picture is one tile. */
  readonly prefix: readonly number[]
  readonly textPrefix: readonly number[]
  /** All pictures, one tile each; picture i has the features from `firstFeature(i)`. */
  readonly pixels: HostTensor<'float32'>
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
  const read = async (name: string) => readPicture(processor, await readFile(goldenImage(name)))
  const pictures = await Promise.all(PICTURES.map(read))
  const pixels = joinTiles(pictures)
  const { layout } = pictures[0]!
  return {
    ...variant,
    prefix: processor.splitPrompt('a', layout).prefix,
    textPrefix: processor.splitPrompt('a', null).prefix,
    pixels,
    features: await variant.network.features(tilePasses(pixels)),
    firstFeature: (picture) => picture * layout.features,
  }
}
