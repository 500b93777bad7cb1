/** The published schemas, the codec, and the subjects. */
import { Ajv2020 } from 'ajv/dist/2020.js'
import { Ajv } from 'ajv'
import { describe, expect, test } from 'vitest'
import { BlobError } from '../bus/bus.ts'
import { decode, encode, INLINE_LIMIT, parseEnvelope } from '../bus/codec.ts'
import { MessageError } from '../bus/errors.ts'
import { MemoryBlobs } from '../bus/memory/blobs.ts'
import { eventSchemas, SCHEMA_VERSION, taskSchemas } from '../bus/messages.ts'
import { asyncApi, exampleMessage, jsonSchemas, messages } from '../bus/schema-doc.ts'
import { keyOf, stores, subjects } from '../bus/subjects.ts'
import { randomHex } from '../bus/trace.ts'

const utf8 = (value: unknown) => new TextEncoder().encode(typeof value === 'string' ? value : JSON.stringify(value))
const subject = 'visplay.run.log.dropped.d'
const sender = { by: 'judge.1', now: 0, hex: randomHex }
const dropped = { step: 1, group: 'g', reason: 'r' }

describe('published schemas', () => {
  test('names are unique, so that a message can be read by its name alone', () => {
    const names = messages().map(({ name }) => name)
    expect(new Set(names).size).toBe(names.length)
  })

  test.each(messages().map((message) => [message.name, message] as const))('%s: its example fits', async (name, m) => {
    const example = exampleMessage(m)
    const blobs = new MemoryBlobs()
    expect((await decode(name, m.schema, utf8(example), 'subject', blobs)).data).toEqual(m.example)
    const ajv = new Ajv2020({ strict: true, validateFormats: false })
    const validate = ajv.compile(jsonSchemas()[name]!)
    expect(validate(example), ajv.errorsText(validate.errors)).toBe(true)
    expect(validate({ ...(example as object), data: { $blob: `sha256-${'0'.repeat(64)}` } })).toBe(true)
    expect(validate({ ...(example as object), version: 99 })).toBe(false)
    expect(validate({ ...(example as object), schema: 'else' })).toBe(false)
  })

  test('the AsyncAPI document has a channel, a payload and two operations per message', () => {
    const document = asyncApi() as {
      channels: Record<string, { address: string; parameters: object; messages: Record<string, { payload: object }> }>
      operations: Record<string, { channel: { $ref: string } }>
    }
    const carried = messages().filter(({ family }) => family !== 'value')
    expect(Object.keys(document.channels)).toHaveLength(carried.length)
    expect(document.channels['task.model.generate']).toMatchObject({
      address: 'visplay.{run}.task.model.generate.{id}',
      parameters: { run: {}, id: {} },
    })
    for (const { channel } of Object.values(document.operations)) {
      expect(document.channels[channel.$ref.replace('#/channels/', '')]).toBeDefined()
    }
    for (const message of carried) {
      const { payload } = document.channels[`${message.family}.${message.name}`]!.messages[message.name]!
      const validate = new Ajv({ validateFormats: false }).compile(payload)
      expect(validate(exampleMessage(message))).toBe(true)
    }
  })
})

describe('codec', () => {
  const blobs = new MemoryBlobs()
  const decodeDropped = (bytes: Uint8Array) => decode('dropped', eventSchemas.dropped, bytes, subject, blobs)
  const good = () => encode('dropped', eventSchemas.dropped, dropped, subject, sender, blobs)
  const changed = async (change: object) =>
    utf8({ ...(JSON.parse(new TextDecoder().decode(await good())) as object), ...change })

  test('round trip', async () => {
    const message = await decodeDropped(await good())
    expect(message).toMatchObject({ schema: 'dropped', version: SCHEMA_VERSION, by: 'judge.1', data: dropped })
    expect(message.at).toBe('1970-01-01T00:00:00.000Z')
  })

  test('everything foreign is refused, naming the subject and the remedy', async () => {
    const cases: [Uint8Array, RegExp][] = [
      [utf8('not json'), /visplay\.run\.log\.dropped\.d: not JSON/],
      [new Uint8Array([0xff, 0xfe]), /not JSON in UTF-8/],
      [utf8({ hello: 1 }), /not an envelope/],
      [utf8('null'), /not an envelope/],
      [await changed({ version: SCHEMA_VERSION + 1 }), /version 3 of schema "dropped".*run the same release/],
      [await changed({ schema: 'image' }), /schema "image" where "dropped" belongs/],
      [await changed({ data: { step: -1 } }), /data does not fit schema "dropped"/],
      [await changed({ traceparent: 'x' }), /not an envelope/],
      [await changed({ data: 'x'.repeat(INLINE_LIMIT + 5000) }), /must be sent as a blob/],
    ]
    for (const [bytes, problem] of cases) {
      const error = await decodeDropped(bytes).catch((e: unknown) => e)
      expect(error).toBeInstanceOf(MessageError)
      expect((error as Error).message).toMatch(problem)
    }
    await expect(decodeDropped(await changed({ data: { $blob: `sha256-${'0'.repeat(64)}` } }))).rejects.toThrow(
      BlobError,
    )
  })

  test('large data travels as a blob of its JSON', async () => {
    const data = { ...dropped, reason: 'x'.repeat(INLINE_LIMIT) }
    const bytes = await encode('dropped', eventSchemas.dropped, data, subject, sender, blobs)
    expect(bytes.length).toBeLessThan(1000)
    const { $blob } = parseEnvelope(bytes, subject).data as { $blob: string }
    expect(JSON.parse(new TextDecoder().decode(await blobs.getBlob($blob)))).toEqual(data)
    expect((await decodeDropped(bytes)).data).toEqual(data)
  })

  test('wrong data is refused at the sender', async () => {
    const wrong = { step: 1, groups: [{ group: 'a group', questions: 'q', answers: null }] }
    await expect(encode('judge.groups', taskSchemas['judge.groups'], wrong, subject, sender, blobs)).rejects.toThrow(
      /ids match/,
    )
  })
})

test('subjects are made of ids only', () => {
  expect(subjects.task('r', 'model.generate', 'x-1')).toBe('visplay.r.task.model.generate.x-1')
  expect(subjects.live('r', 'model.host-1', 'heartbeat')).toBe('visplay.r.live.model.host-1.heartbeat')
  expect(stores.blobs('r')).toBe('VISPLAY_r_BLOBS')
  expect(keyOf('presence.model.1')).toBe('presence.model.1')
  for (const bad of ['', 'a.b', 'a b', '*', '>']) {
    expect(() => subjects.log('r', 'image', bad)).toThrow(MessageError)
    expect(() => subjects.all(bad)).toThrow(MessageError)
  }
  expect(() => subjects.live('r', 'nobody', 'heartbeat')).toThrow(/not role.instance/)
  expect(() => keyOf('a..b')).toThrow(MessageError)
})
