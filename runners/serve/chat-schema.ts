/** The request of `POST /v1/chat/completions`: what is understood, and what is refused rather than ignored. */
import { z } from 'zod'
import { ApiError, invalid } from './api-error.ts'

const textPart = z.object({ type: z.literal('text'), text: z.string() })
const imagePart = z.object({ type: z.literal('image_url'), image_url: z.object({ url: z.string().min(1) }) })
const content = z.union([z.string(), z.array(z.discriminatedUnion('type', [textPart, imagePart])).min(1)])

const requestSchema = z.looseObject({
  model: z.string().min(1),
  messages: z
    .array(z.object({ role: z.enum(['system', 'developer', 'user', 'assistant', 'tool', 'function']), content }))
    .min(1),
  max_tokens: z.int().min(1).nullish(),
  max_completion_tokens: z.int().min(1).nullish(),
  temperature: z.number().min(0).max(2).nullish(),
  seed: z.int().nullish(),
  n: z.int().min(1).nullish(),
  stream: z.boolean().nullish(),
  stream_options: z.looseObject({ include_usage: z.boolean().nullish() }).nullish(),
  logprobs: z.boolean().nullish(),
})
export type ChatRequest = z.infer<typeof requestSchema>
export type ChatMessage = ChatRequest['messages'][number]

/** Fields that would change the answer, with the values that change nothing. */
const UNSUPPORTED: Readonly<Record<string, (value: unknown) => boolean>> = {
  top_p: (value) => value === 1,
  stop: () => false,
  tools: isEmpty,
  functions: isEmpty,
  tool_choice: (value) => value === 'none',
  top_logprobs: (value) => value === 0,
  frequency_penalty: (value) => value === 0,
  presence_penalty: (value) => value === 0,
  logit_bias: isEmpty,
  audio: () => false,
  modalities: (value) => Array.isArray(value) && value.join() === 'text',
  response_format: (value) => typeof value === 'object' && value !== null && 'type' in value && value.type === 'text',
}

function isEmpty(value: unknown): boolean {
  return typeof value === 'object' && value !== null && Object.keys(value).length === 0
}

/** Throws ApiError that names the field. */
export function parseChatRequest(body: string): ChatRequest {
  let json: unknown
  try {
    json = JSON.parse(body)
  } catch (cause) {
    throw new ApiError(400, 'invalid_json', `the body is not JSON: ${(cause as Error).message}`, null, { cause })
  }
  const parsed = requestSchema.safeParse(json)
  if (!parsed.success) {
    const { path, message } = parsed.error.issues[0]!
    throw invalid(path.join('.'), `${path.join('.') || 'the body'}: ${message}`)
  }
  for (const [field, isHarmless] of Object.entries(UNSUPPORTED)) {
    const value = parsed.data[field]
    if (value !== undefined && value !== null && !isHarmless(value))
      throw invalid(field, `${field} is not supported; leave it out`, 'unsupported_parameter')
  }
  return parsed.data
}
