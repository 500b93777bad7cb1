/**
 * The wire's schemas for other languages, generated from the zod schemas: a JSON Schema per message, and an AsyncAPI 3
 * document of all subjects (https://www.asyncapi.com/docs/reference/specification/v3.0.0).
 */
import { z } from 'zod'
import { blobReferenceSchema } from './codec.ts'
import { eventExamples, liveExamples, taskExamples, valueExamples } from './examples.ts'
import { envelopeSchema, eventSchemas, liveSchemas, SCHEMA_VERSION, taskSchemas, valueSchemas } from './messages.ts'

type JsonSchema = Record<string, unknown>
type Family = 'task' | 'log' | 'live' | 'value'

interface Message {
  readonly family: Family
  readonly name: string
  readonly schema: z.ZodType
  readonly example: unknown
}

/** How messages of a family travel, and where: `{…}` are parameters of the subject. */
const FAMILIES: Record<Exclude<Family, 'value'>, { address: (name: string) => string; description: string }> = {
  task: {
    address: (name) => `visplay.{run}.task.${name}.{id}`,
    description: 'JetStream work queue VISPLAY_{run}_TASKS, one durable pull consumer per kind; Nats-Msg-Id is kind.id',
  },
  log: {
    address: (name) => `visplay.{run}.log.${name}.{id}`,
    description: 'JetStream stream VISPLAY_{run}_LOG, append only: the first message of a subject is the only one',
  },
  live: { address: (name) => `visplay.{run}.live.{role}.{instance}.${name}`, description: 'core NATS, lossy' },
}

const PARAMETERS: Record<string, string> = {
  run: 'the run',
  id: 'id of the task or record',
  role: 'role of the sender',
  instance: 'instance of the sender',
}

/** Every message of the wire. */
export function messages(): Message[] {
  const of = (family: Family, schemas: Record<string, z.ZodType>, examples: Record<string, unknown>): Message[] =>
    Object.entries(schemas).map(([name, schema]) => ({ family, name, schema, example: examples[name] }))
  return [
    ...of('task', taskSchemas, taskExamples),
    ...of('log', eventSchemas, eventExamples),
    ...of('live', liveSchemas, liveExamples),
    ...of('value', valueSchemas, valueExamples),
  ]
}

/** A whole example message: its example data in an envelope. */
export const exampleMessage = ({ name, example }: Message): unknown => ({
  schema: name,
  version: SCHEMA_VERSION,
  traceparent: '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01',
  at: '2026-01-31T12:00:00.000Z',
  by: 'questioner.laptop-1',
  data: example,
})

/** JSON Schema (2020-12) of every whole message, by name. */
export function jsonSchemas(): Record<string, JsonSchema> {
  return Object.fromEntries(
    messages().map((message) => [message.name, z.toJSONSchema(wholeSchema(message), { io: 'input' })]),
  )
}

/** The AsyncAPI 3 document. */
export function asyncApi(): JsonSchema {
  const channels: JsonSchema = {}
  const operations: JsonSchema = {}
  for (const message of messages()) {
    const { family, name } = message
    if (family === 'value') continue
    const key = `${family}.${name}`
    channels[key] = channel(family, message)
    operations[`send.${key}`] = { action: 'send', channel: { $ref: `#/channels/${key}` } }
    operations[`receive.${key}`] = { action: 'receive', channel: { $ref: `#/channels/${key}` } }
  }
  return {
    asyncapi: '3.0.0',
    info: {
      title: 'visplay',
      version: String(SCHEMA_VERSION),
      description: 'Everything that the actors of a run say to each other.',
    },
    defaultContentType: 'application/json',
    channels,
    operations,
  }
}

function channel(family: Exclude<Family, 'value'>, message: Message): JsonSchema {
  const { address, description } = FAMILIES[family]
  const subject = address(message.name)
  const names = [...subject.matchAll(/\{(\w+)\}/g)].map((match) => match[1]!)
  return {
    address: subject,
    description,
    parameters: Object.fromEntries(names.map((name) => [name, { description: PARAMETERS[name] }])),
    messages: {
      [message.name]: {
        name: message.name,
        // AsyncAPI's own schema language is a superset of draft 7.
        payload: z.toJSONSchema(wholeSchema(message), { io: 'input', target: 'draft-7' }),
        examples: [{ payload: exampleMessage(message) }],
      },
    },
  }
}

/** Envelope and data as they are on the wire. */
const wholeSchema = ({ name, schema }: Message) =>
  envelopeSchema.extend({
    schema: z.literal(name),
    version: z.literal(SCHEMA_VERSION),
    data: z.union([schema, blobReferenceSchema]),
  })
