/** Chat messages → prompt text with the Jinja template of a checkpoint folder. */
import { join } from 'node:path'
import { Template } from '@huggingface/jinja'
import { z } from 'zod'
import { CheckpointError } from './checkpoint-error.ts'
import { readJsonIfPresent, readTextIfPresent, reasonOf } from './json-file.ts'

export type ChatPart = { readonly type: 'image' } | { readonly type: 'text'; readonly text: string }

export interface ChatMessage {
  readonly role: string
  readonly content: string | readonly ChatPart[]
}

export interface ChatTemplate {
  readonly template: Template
  /** Named in errors. */
  readonly file: string
}

const namedSchema = z.array(z.object({ name: z.string(), template: z.string() }))
const templateSchema = z.looseObject({ chat_template: z.union([z.string(), namedSchema]).nullish() })

/** The template in `chat_template.jinja`, else `chat_template.json`, else `tokenizer_config.json`. */
export async function loadChatTemplate(dir: string): Promise<ChatTemplate> {
  const jinja = join(dir, 'chat_template.jinja')
  const text = await readTextIfPresent(jinja)
  if (text !== undefined) return compile(text, jinja)
  for (const name of ['chat_template.json', 'tokenizer_config.json']) {
    const file = join(dir, name)
    const found = (await readJsonIfPresent(file, templateSchema))?.chat_template
    const source = typeof found === 'string' ? found : found?.find((one) => one.name === 'default')?.template
    if (source !== undefined) return compile(source, file)
  }
  throw new CheckpointError('no chat template (chat_template.jinja or .json, or in tokenizer_config.json)', {
    file: dir,
  })
}

/** Render messages; `variables` are the special tokens that some templates print (`bos_token`, …). */
export function renderChat(
  { template, file }: ChatTemplate,
  messages: readonly ChatMessage[],
  options: { addGenerationPrompt: boolean; variables?: Readonly<Record<string, string>> },
): string {
  const { addGenerationPrompt, variables } = options
  try {
    return template.render({ ...variables, messages, add_generation_prompt: addGenerationPrompt })
  } catch (cause) {
    throw new CheckpointError(`the chat template fails (${reasonOf(cause)})`, { file, cause })
  }
}

function compile(source: string, file: string): ChatTemplate {
  try {
    return { template: new Template(source), file }
  } catch (cause) {
    throw new CheckpointError(`not a usable chat template (${reasonOf(cause)})`, { file, cause })
  }
}
