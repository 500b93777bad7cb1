/** A blob into JetStream's object store, in its published format (NATS ADR-20): any client reads it. */
import { JetStreamError, JsHeaders, type JetStreamClient, type JetStreamManager, type PubAck } from '@nats-io/jetstream'
import { headers, nuid } from '@nats-io/nats-core'

/** Below the server's `max_payload`; larger chunks gain nothing. */
const CHUNK_BYTES = 512 * 1024
/** In the metadata of an object: places of its chunks in the stream, so that a reader need not look for one after the other. */
export const CHUNK_SEQS = 'visplay-chunks'
/** Chunks on their way at once. */
const WINDOW = 16

/**
 * Writes the chunks, several on their way at once, then the entry that makes them an object. The object store's own
 * `put` waits for each chunk before it sends the next, copies every byte twice, and hashes what its name says already.
 *
 * @param name `sha256-…` of the bytes.
 */
export async function writeBlob(
  { js, jsm }: { readonly js: JetStreamClient; readonly jsm: JetStreamManager },
  bucket: string,
  name: string,
  bytes: Uint8Array,
): Promise<void> {
  const id = nuid.next()
  const subject = `$O.${bucket}.C.${id}`
  try {
    const seqs = await writeChunks(js, subject, bytes)
    const entry = {
      name,
      description: '',
      options: { max_chunk_size: CHUNK_BYTES },
      metadata: { [CHUNK_SEQS]: seqs.join() },
      bucket,
      nuid: id,
      size: bytes.length,
      chunks: seqs.length,
      mtime: new Date().toISOString(),
      digest: `SHA-256=${base64Url(Buffer.from(name.slice('sha256-'.length), 'hex'))}`,
      deleted: false,
    }
    // Only the newest entry of a name is kept.
    const replaces = headers()
    replaces.set(JsHeaders.RollupHdr, JsHeaders.RollupValueSubject)
    await js.publish(`$O.${bucket}.M.${base64Url(Buffer.from(name))}`, JSON.stringify(entry), { headers: replaces })
  } catch (error) {
    // What is half there only takes room; an attempt that fails may be for a server that is away, or by whoever may not.
    await jsm.streams.purge(`OBJ_${bucket}`, { filter: subject }).catch(() => {})
    throw error
  }
}

/** Their places in the stream. Rejects when one is not stored, or not behind the one before it. */
async function writeChunks(js: JetStreamClient, subject: string, bytes: Uint8Array): Promise<number[]> {
  const acks: Promise<PubAck>[] = []
  for (let at = 0; at < bytes.length; at += CHUNK_BYTES) {
    const ack = js.publish(subject, bytes.subarray(at, at + CHUNK_BYTES))
    ack.catch(() => {}) // Waited for below.
    acks.push(ack)
    await acks.at(-WINDOW)
  }
  const seqs = (await Promise.all(acks)).map(({ seq }) => seq)
  if (seqs.some((seq, i) => i > 0 && seq <= seqs[i - 1]!))
    throw new JetStreamError('chunks of a blob were stored out of order')
  return seqs
}

/** With its padding. */
const base64Url = (bytes: Buffer): string => bytes.toString('base64').replaceAll('+', '-').replaceAll('/', '_')
