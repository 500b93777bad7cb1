/** Chat messages → prompt text with the Jinja template of a checkpoint folder. */
import { join } from 'node:path'
import { Environment, Interpreter, Template } from '@huggingface/jinja'
import { z } from 'zod'
import { CheckpointError } from './checkpoint-error.ts'
import { readJsonIfPresent, readTextIfPresent, reasonOf } from './json-file.ts'
import { withinTime } from './time-limit.ts'

/** Bounds of a template, thousands of times what published ones need. It sees nothing but what `renderChat` gives it. */
const MOST_SOURCE = 2 ** 20
const MOST_TEXT = 2 ** 24
const MOST_RANGE = 100_000
const MOST_MS = 1000

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
  throw new CheckpointError(
    'no chat template (chat_template.jinja or .json, or in tokenizer_config.json); download all files of the checkpoint',
    { file: dir },
  )
}

/** Render messages; `variables` are the special tokens that some templates print (`bos_token`, …). */
export function renderChat(
  { template, file }: ChatTemplate,
  messages: readonly ChatMessage[],
  options: { addGenerationPrompt: boolean; variables?: Readonly<Record<string, string>> },
): string {
  const { addGenerationPrompt, variables } = options
  const given = { ...globals, ...variables, messages, add_generation_prompt: addGenerationPrompt }
  let text: string
  try {
    text = withinTime(MOST_MS, () => render(template, given))
  } catch (cause) {
    throw new CheckpointError(`the chat template fails (${reasonOf(cause)}); ${REMEDY}`, { file, cause })
  }
  const input = JSON.stringify(messages).length
  if (text.length <= MOST_TEXT + input) return text
  throw new CheckpointError(`the chat template makes ${text.length} characters of ${input}; ${REMEDY}`, { file })
}

const REMEDY = 'use the one that the model was published with'

function render(template: Template, given: Readonly<Record<string, unknown>>): string {
  const environment = new Environment()
  for (const [name, value] of Object.entries(given)) environment.set(name, value)
  const { value } = new Interpreter(environment).run(template.parsed)
  if (typeof value !== 'string') throw new TypeError('it gives no text')
  return value
}

/** All that a template can reach besides the messages. A clock is not among it: equal inputs give equal prompts. */
const globals: Readonly<Record<string, unknown>> = {
  ...{ true: true, True: true, false: false, False: false, none: null, None: null },
  raise_exception: (message: string) => {
    throw new Error(message)
  },
  // The library's own fills the memory with as many numbers as it is asked for.
  range(start: number, stop?: number, step = 1): number[] {
    const [first, end] = stop === undefined ? [0, start] : [start, stop]
    const length = Math.ceil((end - first) / step)
    if (!(Math.abs(length) <= MOST_RANGE)) throw new RangeError(`range() of ${length} numbers`)
    return Array.from({ length: Math.max(0, length) }, (_, i) => first + i * step)
  },
}

function compile(source: string, file: string): ChatTemplate {
  try {
    if (source.length > MOST_SOURCE) throw new RangeError(`${source.length} characters`)
    return { template: withinTime(MOST_MS, () => new Template(source)), file }
  } catch (cause) {
    throw new CheckpointError(`not a usable chat template (${reasonOf(cause)}); ${REMEDY}`, { file, cause })
  }
}
