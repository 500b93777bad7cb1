/** Recomputes a golden variant of any family with the product's own code, and compares. */
import { readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { reasonOf } from '../../io/json-file.ts'
import type { Verified } from '../../losses/verify-grpo.ts'
import type { SessionOptions } from '../../runtime/session.ts'
import { adapt } from './adapter.ts'
import { checksOf } from './checks.ts'
import { GoldenTensors } from './golden-files.ts'
import type { GoldenImages } from './golden-images.ts'
import { openVariant, type Variant } from './variant.ts'
import { verifyBatch } from './verify-batch.ts'
import { verifyCase } from './verify-case.ts'
import { verifyMerged } from './verify-merged.ts'
import { verifyPreprocessing } from './verify-preprocessing.ts'
import { verifyRollouts } from './verify-rollouts.ts'
import { verifySft } from './verify-sft.ts'

/** A part of a variant that is verified on its own. */
export interface Section {
  readonly name: string
  verify(variant: Variant): AsyncGenerator<Verified>
}

/**
 * All quantities of the variant in `dir` (`checkpoint/`, `cases/`, `batch.*`, `train/`, `preprocessing.json`). A section
 * that cannot be computed fails with the quantity `error`, and the others go on.
 *
 * @throws CheckpointError when the checkpoint cannot be loaded.
 */
export async function* verifyVariant(
  dir: string,
  images: GoldenImages,
  options: SessionOptions,
): AsyncGenerator<Verified> {
  const variant = await openVariant(dir, images, options)
  try {
    for (const section of await sectionsOf(dir)) yield* verifySection(section, variant)
  } finally {
    await variant.dispose()
  }
}

/** The sections of a variant folder. */
export async function sectionsOf(dir: string): Promise<Section[]> {
  const files = await readdir(join(dir, 'cases'))
  const names = new Set(files.map((file) => file.replace(/\.(json|safetensors)$/, '')))
  return [
    { name: 'preprocessing', verify: verifyPreprocessing },
    ...[...names].toSorted().map((name) => ({
      name: `cases/${name}`,
      verify: (variant: Variant) => verifyCase(variant, name),
    })),
    { name: 'batch', verify: verifyBatch },
    { name: 'train/sft', verify: verifySft },
    { name: 'train/adapter', verify: verifyAdapter },
  ]
}

export async function* verifySection(section: Section, variant: Variant): AsyncGenerator<Verified> {
  try {
    yield* section.verify(variant)
  } catch (error) {
    yield { ...checksOf(section.name).within('error', Infinity, 0), message: reasonOf(error) }
  }
}

async function* verifyAdapter(variant: Variant): AsyncGenerator<Verified> {
  const batch = await GoldenTensors.open(join(variant.dir, 'train', 'grpo_batch.safetensors'))
  const adapted = await adapt(variant)
  try {
    yield* verifyMerged(variant, adapted, batch)
    yield* verifyRollouts(variant, adapted, batch)
    yield checksOf('train/grpo').same('tensors that nothing was compared with', batch.unread(), [])
  } finally {
    await adapted.dispose()
  }
}
