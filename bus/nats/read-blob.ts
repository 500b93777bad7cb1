/** A blob out of JetStream's object store. */
import type { JetStreamManager, StoredMsg } from '@nats-io/jetstream'
import type { ObjectInfo, ObjectStore } from '@nats-io/obj'
import { missingBlob } from '../blob-name.ts'
import { BlobError } from '../bus.ts'
import { CHUNK_SEQS } from './write-blob.ts'

/** Chunks asked for at once. */
const WINDOW = 8

/**
 * Its bytes, chunk by chunk by direct get, not yet verified. The object store's own `get` makes a consumer for every
 * object, which the server keeps for minutes: after a few thousand of them it takes seconds to start and to stop.
 */
export async function readBlob(
  { objects, jsm }: { readonly objects: ObjectStore; readonly jsm: JetStreamManager },
  name: string,
): Promise<Uint8Array> {
  const info = await objects.info(name)
  if (info === null || info.deleted) throw missingBlob(name)
  const seqs = info.metadata?.[CHUNK_SEQS]
  const chunks =
    seqs === undefined ? inTurn(jsm, info) : atOnce(jsm, info, seqs === '' ? [] : seqs.split(',').map(Number))
  const bytes = new Uint8Array(info.size)
  let at = 0
  for await (const data of chunks) {
    if (at + data.length > info.size) throw unreadable(info, at)
    bytes.set(data, at)
    at += data.length
  }
  if (at < info.size) throw unreadable(info, at)
  return bytes
}

const unreadable = ({ name, size }: ObjectInfo, at: number): BlobError =>
  new BlobError(`blob ${name} cannot be read back (${at} of ${size} bytes fit); store it again`)

const streamOf = ({ bucket }: ObjectInfo): string => `OBJ_${bucket}`

/** Chunks whose places in the stream are known: the next ones are on their way while one is waited for. */
async function* atOnce(jsm: JetStreamManager, info: ObjectInfo, seqs: readonly number[]): AsyncGenerator<Uint8Array> {
  const asked: Promise<StoredMsg | null>[] = []
  for (let i = 0; i < seqs.length; i++) {
    for (let next = asked.length; next < Math.min(seqs.length, i + WINDOW); next++) {
      const chunk = jsm.direct.getMessage(streamOf(info), { seq: seqs[next]! })
      chunk.catch(() => {}) // Waited for below.
      asked.push(chunk)
    }
    const chunk = await asked[i]!
    if (chunk === null) return
    yield chunk.data
  }
}

/** Chunks of an object that another program wrote: each is looked for behind the one before it. */
async function* inTurn(jsm: JetStreamManager, info: ObjectInfo): AsyncGenerator<Uint8Array> {
  const chunks = `$O.${info.bucket}.C.${info.nuid}`
  for (let at = 0, seq = 1; at < info.size;) {
    const chunk = await jsm.direct.getMessage(streamOf(info), { seq, next_by_subj: chunks })
    if (chunk === null) return
    yield chunk.data
    at += chunk.data.length
    seq = chunk.seq + 1
  }
}
