/** The options of commands that open a model. */
import type { Command } from 'commander'
import { Option } from 'commander'
import { resolve } from 'node:path'
import { DEVICES } from '../../configs/devices.ts'
import type { Device } from '../../configs/devices.ts'
import type { Model } from '../../models/model.ts'
import { modelDir } from './model-dir.ts'
import { integer } from './options.ts'

export interface ModelOptions {
  readonly model: string
  readonly adapter?: string
  readonly device: Device
  readonly threads: number
  readonly checkMemory: boolean
}

/** What `--model` takes. */
export const MODEL = 'folder of a Hugging Face checkpoint, or its name on the hub: owner/name[@revision]'

export function modelOptions(command: Command): Command {
  return command
    .requiredOption('--model <dir>', MODEL)
    .option('--adapter <dir>', 'folder of a PEFT adapter for it')
    .addOption(new Option('--device <name>', 'where to compute').choices(DEVICES).default('auto'))
    .option('--threads <n>', 'CPU threads; 0 = the cores of the machine', integer(0), 0)
    .option('--no-check-memory', 'load the model even if it does not seem to fit the free memory')
}

/** Loads the model that the options name, unless it does not fit (MemoryError). The caller disposes it. */
export async function openModel({ model, adapter, device, threads, checkMemory }: ModelOptions): Promise<Model> {
  const [{ loadModel }, { checkModelFits }, { dir }] = await Promise.all([
    import('../../models/vlm/load.ts'),
    import('../memory/plan.ts'),
    modelDir(model),
  ])
  if (checkMemory) await checkModelFits(dir)
  return loadModel(dir, { device, threads, ...(adapter === undefined ? {} : { adapter: resolve(adapter) }) })
}
