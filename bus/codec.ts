/**
 * Bytes <-> validated messages. Everything that comes from a bus is untrusted: size, JSON, envelope, schema name,
 * schema version and data are checked in this order, and each failure is a `MessageError` naming the subject.
 *
 * Data whose JSON is over `INLINE_LIMIT` travels as a blob: the envelope then holds `"data": {"$blob": "sha256-…"}`
 * and the blob is the JSON text of the data.
 */
import { z } from 'zod'
import type { Traced } from './bus.ts'
import { MessageError } from './errors.ts'
import { blobSchema, envelopeSchema, SCHEMA_VERSION, type Envelope } from './messages.ts'
import { traceparent } from './trace.ts'

/** Bytes of JSON that travel inside a message. */
export const INLINE_LIMIT = 256 * 1024
/** Bytes of an envelope around data. */
const ENVELOPE_ROOM = 4 * 1024
/** Bytes of JSON data that are accepted at all, inline or as a blob. */
const DATA_LIMIT = 64 * 1024 * 1024

/** Where data too large for a message goes to and comes from. */
export interface BlobStore {
  /** Without a copy: nobody writes into the bytes afterwards. */
  putBlob(bytes: Uint8Array): Promise<string>
  /** Others may get the same bytes: nobody writes into them. */
  getBlob(name: string): Promise<Uint8Array>
}

/** Who sends, when, and in which trace. */
export interface Sender {
  readonly by: string
  /** Milliseconds since the epoch. */
  readonly now: number
  /** 32 random hex digits for a trace. */
  hex(): string
  readonly parent?: Traced | undefined
}

/** How data too large for a message is written in its envelope. */
export const blobReferenceSchema = z.strictObject({ $blob: blobSchema })

const utf8 = new TextEncoder()
const text = new TextDecoder('utf-8', { fatal: true })

/**
 * Validates `data` and wraps it. Puts large data into `blobs` first, so that a reader of the message finds it.
 * Throws MessageError for data that its schema refuses.
 */
export async function encode<T>(
  name: string,
  schema: z.ZodType<T>,
  data: T,
  subject: string,
  sender: Sender,
  blobs: BlobStore,
): Promise<Uint8Array> {
  const json = JSON.stringify(check(schema, data, name, subject))
  let body = json
  if (json.length > INLINE_LIMIT / 4) {
    const bytes = utf8.encode(json)
    if (bytes.length > DATA_LIMIT) {
      throw new MessageError(subject, `${bytes.length} bytes of data, over the limit of ${DATA_LIMIT}: split it`)
    }
    if (bytes.length > INLINE_LIMIT) body = JSON.stringify({ $blob: await blobs.putBlob(bytes) })
  }
  const head = JSON.stringify({
    schema: name,
    version: SCHEMA_VERSION,
    traceparent: traceparent(sender.parent, () => sender.hex()),
    at: new Date(sender.now).toISOString(),
    by: sender.by,
  })
  return utf8.encode(`${head.slice(0, -1)},"data":${body}}`)
}

/** The validated message in `bytes`; fetches large data from `blobs`. Throws MessageError (BlobError for its blob). */
export async function decode<T>(
  name: string,
  schema: z.ZodType<T>,
  bytes: Uint8Array,
  subject: string,
  blobs: Pick<BlobStore, 'getBlob'>,
): Promise<Envelope<T>> {
  const envelope = parseEnvelope(bytes, subject)
  if (envelope.schema !== name) {
    throw new MessageError(subject, `schema "${envelope.schema}" where "${name}" belongs: correct the sender`)
  }
  const reference = blobReferenceSchema.safeParse(envelope.data)
  if (!reference.success) return { ...envelope, data: check(schema, envelope.data, name, subject) }
  const blob = await blobs.getBlob(reference.data.$blob)
  if (blob.length > DATA_LIMIT) throw new MessageError(subject, `${blob.length} bytes of data: over ${DATA_LIMIT}`)
  return { ...envelope, data: check(schema, parseJson(blob, subject), name, subject) }
}

/** The envelope alone, its data not yet checked: for taps that show everything. */
export function parseEnvelope(bytes: Uint8Array, subject: string): Envelope<unknown> {
  if (bytes.length > INLINE_LIMIT + ENVELOPE_ROOM) {
    throw new MessageError(subject, `${bytes.length} bytes: data over ${INLINE_LIMIT} bytes must be sent as a blob`)
  }
  const parsed = envelopeSchema.safeParse(parseJson(bytes, subject))
  if (!parsed.success) throw new MessageError(subject, `not an envelope: ${oneLine(parsed.error)}`)
  const { version, schema } = parsed.data
  if (version !== SCHEMA_VERSION) {
    throw new MessageError(
      subject,
      `version ${version} of schema "${schema}", this program speaks version ${SCHEMA_VERSION}: ` +
        'run the same release of visplay on every machine of a run',
    )
  }
  return { ...parsed.data, data: parsed.data.data }
}

function check<T>(schema: z.ZodType<T>, data: unknown, name: string, subject: string): T {
  const parsed = schema.safeParse(data)
  if (parsed.success) return parsed.data
  throw new MessageError(subject, `data does not fit schema "${name}": ${oneLine(parsed.error)}`)
}

function parseJson(bytes: Uint8Array, subject: string): unknown {
  try {
    return JSON.parse(text.decode(bytes))
  } catch (cause) {
    throw new MessageError(subject, 'not JSON in UTF-8: only messages of visplay belong on visplay.>', { cause })
  }
}

const oneLine = (error: z.ZodError): string => z.prettifyError(error).replaceAll(/\s*\n\s*/g, ' ')
