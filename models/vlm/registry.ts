/** Families by `model_type` of config.json: a new family is one folder and one line here. */
import { join } from 'node:path'
import { z } from 'zod'
import { CheckpointError } from '../io/checkpoint-error.ts'
import { readJson } from '../io/json-file.ts'
import type { Family } from './family.ts'
import { llava } from './llava/family.ts'
import { llavaNext } from './llava_next/family.ts'
import { qwen25Vl } from './qwen2_5_vl/family.ts'
import { smolVlm } from './smolvlm/family.ts'

const families: Readonly<Record<string, Family>> = {
  smolvlm: smolVlm,
  idefics3: smolVlm,
  llava,
  llava_next: llavaNext,
  qwen2_5_vl: qwen25Vl,
}

/** Values of `model_type` that can be loaded. */
export const modelTypes: readonly string[] = Object.keys(families)

/** The family of a checkpoint folder; an unknown architecture is an error that names the known ones. */
export async function familyOf(dir: string): Promise<Family> {
  const file = join(dir, 'config.json')
  const { model_type: type } = await readJson(file, z.looseObject({ model_type: z.string() }))
  const family = Object.hasOwn(families, type) ? families[type] : undefined
  if (!family) {
    const known = modelTypes.join(', ')
    throw new CheckpointError(`the architecture "${type}" is not supported: use a checkpoint of ${known}`, { file })
  }
  return family
}
