/** A blob out of JetStream's object store. */
import type { JetStreamManager } from '@nats-io/jetstream'
import type { ObjectStore } from '@nats-io/obj'
import { missingBlob } from '../blob-name.ts'
import { BlobError } from '../bus.ts'

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
  const bytes = new Uint8Array(info.size)
  for (let at = 0, seq = 1; at < info.size;) {
    const chunks = `$O.${info.bucket}.C.${info.nuid}`
    const chunk = await jsm.direct.getMessage(`OBJ_${info.bucket}`, { seq, next_by_subj: chunks })
    if (chunk === null || at + chunk.data.length > info.size) {
      throw new BlobError(`blob ${name} cannot be read back (${at} of ${info.size} bytes fit); store it again`)
    }
    bytes.set(chunk.data, at)
    at += chunk.data.length
    seq = chunk.seq + 1
  }
  return bytes
}
