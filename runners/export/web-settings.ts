/** Settings of a checkpoint where transformers.js looks for them, beside where transformers has them. */
import { existsSync } from 'node:fs'
import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { z } from 'zod'
import { readJson, readJsonIfPresent, readTextIfPresent } from '../../models/io/json-file.ts'

const fields = z.record(z.string(), z.json())
const configSchema = z.looseObject({
  model_type: z.string(),
  text_config: fields.optional(),
  num_hidden_layers: z.int().optional(),
  'transformers.js_config': fields.optional(),
})
const processorSchema = z.looseObject({ processor_class: z.string().optional(), image_processor: fields.optional() })
const templateSchema = z.looseObject({ chat_template: z.json().optional() })

/** Adds to the settings in `dir`; `files` counts the files of weights of every graph. Both libraries read the result. */
export async function writeWebSettings(dir: string, files: Readonly<Record<string, number>>): Promise<void> {
  await nameDataFiles(join(dir, 'config.json'), files)
  await splitProcessor(dir)
  await countPlaceholders(join(dir, 'processor_config.json'))
  await nameTemplate(dir)
}

async function nameDataFiles(file: string, files: Readonly<Record<string, number>>): Promise<void> {
  const config = await readJson(file, configSchema)
  const own = { ...config['transformers.js_config'], use_external_data_format: files }
  // Qwen2.5-VL as transformers 4 wrote it has the fields of the text model among the others.
  const flat = config.text_config === undefined && config.num_hidden_layers !== undefined
  const text = flat
    ? {
        text_config: withFields(await readFile(file, 'utf8'), {
          model_type: JSON.stringify(`${config.model_type}_text`),
        }),
      }
    : {}
  await extend(file, { ...text, 'transformers.js_config': JSON.stringify(own) })
}

/** Adds fields, each a JSON text, to an object that stays letter by letter: 1.0 must not become 1, which Python tells apart. */
function withFields(object: string, fields: Readonly<Record<string, string>>): string {
  const added = Object.entries(fields).map(([name, value]) => `,\n  ${JSON.stringify(name)}: ${value}`)
  return object.trimEnd().replace(/\s*\}$/, () => `${added.join('')}\n}`)
}

async function extend(file: string, fields: Readonly<Record<string, string>>): Promise<void> {
  await writeFile(file, `${withFields(await readFile(file, 'utf8'), fields)}\n`)
}

/** Image settings in a file of their own, as before transformers 5. */
async function splitProcessor(dir: string): Promise<void> {
  const file = join(dir, 'preprocessor_config.json')
  const settings = await readJsonIfPresent(join(dir, 'processor_config.json'), processorSchema)
  if (!settings?.image_processor || existsSync(file)) return
  const { image_processor: image, processor_class: name } = settings
  const own = { ...image, ...(name !== undefined && { processor_class: name }) }
  await writeFile(file, `${JSON.stringify(own, null, 2)}\n`)
}

/** LLaVA: transformers.js does not take the class token, whose feature is left out, off the number of placeholders. */
async function countPlaceholders(file: string): Promise<void> {
  const settings = await readJsonIfPresent(file, llavaSchema)
  const extra = settings?.num_additional_image_tokens ?? 0
  if (settings?.vision_feature_select_strategy !== 'default' || extra < 1) return
  const text = await readFile(file, 'utf8')
  await writeFile(
    file,
    text
      .replace(/("num_additional_image_tokens"\s*:\s*)\d+/, `$1${extra - 1}`)
      .replace(/("vision_feature_select_strategy"\s*:\s*)"default"/, '$1"full"'),
  )
}

const llavaSchema = z.looseObject({
  num_additional_image_tokens: z.int().nullish(),
  vision_feature_select_strategy: z.string().nullish(),
})

/** The chat template inside the settings of the tokenizer. */
async function nameTemplate(dir: string): Promise<void> {
  const file = join(dir, 'tokenizer_config.json')
  const tokenizer = await readJsonIfPresent(file, templateSchema)
  if (!tokenizer || tokenizer.chat_template) return
  const template =
    (await readTextIfPresent(join(dir, 'chat_template.jinja'))) ??
    (await readJsonIfPresent(join(dir, 'chat_template.json'), templateSchema))?.chat_template
  if (template !== undefined) await extend(file, { chat_template: JSON.stringify(template) })
}
