/** Families by `model_type` of config.json: a new family is one folder and one line here. */
import { join } from 'node:path'
import { z } from 'zod'
import { CheckpointError } from '../io/checkpoint-error.ts'
import { readJson } from '../io/json-file.ts'
import type { Model } from '../model.ts'
import type { LoadOptions } from './load-options.ts'
import { loadSmolVlm } from './smolvlm/load.ts'

type LoadFamily = (dir: string, options: LoadOptions) => Promise<Model>

const families: Readonly<Record<string, LoadFamily>> = {
  smolvlm: loadSmolVlm,
  idefics3: loadSmolVlm,
}

/** Loads a checkpoint folder on the calling thread; an unknown architecture is an error that names the known ones. */
export async function loadOnThisThread(dir: string, options: LoadOptions): Promise<Model> {
  const file = join(dir, 'config.json')
  const { model_type: type } = await readJson(file, z.looseObject({ model_type: z.string() }))
  const load = families[type]
  if (!load) {
    const known = Object.keys(families).join(', ')
    throw new CheckpointError(`the architecture "${type}" is not supported: use a checkpoint of ${known}`, { file })
  }
  return load(dir, options)
}
