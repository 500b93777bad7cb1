/** The smallest golden checkpoint of a family, opened for tests of the engine: every weight trainable, no token banned. */
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { HostTensor } from '../../models/tensor.ts'
import type { TreeRoot } from '../../models/tree/pack.ts'
import type { VisionInput } from '../../models/vlm/family.ts'
import { readPicture } from '../../models/vlm/pictures.ts'
import { GoldenImages } from '../../models/vlm/verify/golden-images.ts'
import { openVariant, type Variant } from '../../models/vlm/verify/variant.ts'
import { goldenImage, goldens, qwenVariants } from './goldens.ts'

export interface TinyVariant extends Variant {
  /** Ids up to the end of a picture (null: those before a text), then `more`. */
  root(picture: number | null, more?: readonly number[]): Omit<TreeRoot, 'prompts'>
  /** All pictures as one pass, and their features, which follow one another. */
  readonly pixels: VisionInput
  readonly features: HostTensor<'float32'>
}

const PICTURES = ['square64.png', 'banner100x60.png', 'noise48x40.png']
/** Ids below are neither special tokens nor placeholders. */
export const WORDS = 590
/** One of every family. */
export const TINY = ['smolvlm/tiny64', qwenVariants[0]!] as const

export async function openTiny(name: string = TINY[0]): Promise<TinyVariant> {
  const images = await GoldenImages.open(join(goldens, 'images'))
  const variant = await openVariant(join(goldens, name), images, { threads: 1 })
  const { processor, architecture, network } = variant
  const read = async (name: string) => readPicture(processor, await readFile(goldenImage(name)))
  const pictures = await Promise.all(PICTURES.map(read))
  const layouts = pictures.map((p) => p.layout)
  return {
    ...variant,
    root: (picture, more = []) => {
      const layout = picture === null ? null : layouts[picture]!
      const prefix = [...processor.prompts.splitPrompt('a', layout).prefix, ...more]
      const positions = architecture.positions?.(prefix, layout ? [layout] : [])
      const firstFeature = layouts.slice(0, picture ?? 0).reduce((n, l) => n + l.features, 0)
      return { prefix, firstFeature, ...(positions && { positions }) }
    },
    pixels: architecture.vision.join(pictures),
    features: await network.features(architecture.vision.passes(pictures)),
  }
}
