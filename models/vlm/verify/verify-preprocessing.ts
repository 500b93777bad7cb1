/** Settings of the image processor, as the reference reports them and as the checkpoint states them. */
import { join } from 'node:path'
import { isDeepStrictEqual } from 'node:util'
import { z } from 'zod'
import { readJson, readJsonIfPresent } from '../../io/json-file.ts'
import type { Verified } from '../../losses/verify-grpo.ts'
import { checksOf } from './checks.ts'
import { preprocessingSchema, resampleCode } from './golden-files.ts'
import type { Variant } from './variant.ts'

const object = z.record(z.string(), z.json())
const processorSchema = z.looseObject({ processor_class: z.string().optional(), image_processor: object.optional() })

export async function* verifyPreprocessing({ dir, processor }: Variant): AsyncGenerator<Verified> {
  const check = checksOf('preprocessing')
  const golden = await readJson(join(dir, 'preprocessing.json'), preprocessingSchema)
  const { processorClass, stated } = await statedSettings(join(dir, 'checkpoint'))
  const settings = processor.reportedSettings?.(stated) ?? stated
  const wrong = Object.keys(golden.settings).filter((key) => !isDeepStrictEqual(golden.settings[key], settings[key]))
  yield check.same('settings', wrong, [])
  yield check.same('processor', [processorClass], [golden.processor])
  yield check.same('image_processor', [`${String(settings.image_processor_type)}Pil`], [golden.image_processor])
  yield check.same('torchvision processor', [settings.image_processor_type as string], [golden.torchvision.processor])
  yield check.same('resample', [settings.resample as number], [resampleCode(golden.resample)])
  const gaps = Object.values(golden.torchvision.abs_gap_to_pil)
  yield check.holds(
    'torchvision gaps',
    gaps.every(({ mean, max }) => mean >= 0 && mean <= max),
  )
}

/** v5 layout: the image settings are inside `processor_config.json`; hub layout: beside it, or instead of it. */
async function statedSettings(
  checkpoint: string,
): Promise<{ processorClass: string | null; stated: z.infer<typeof object> }> {
  const own = await readJsonIfPresent(join(checkpoint, 'processor_config.json'), processorSchema)
  const hub = await readJsonIfPresent(join(checkpoint, 'preprocessor_config.json'), object)
  const { processor_class: named } = processorSchema.parse(own?.processor_class === undefined ? (hub ?? {}) : own)
  return { processorClass: named ?? null, stated: own?.image_processor ?? hub ?? {} }
}
