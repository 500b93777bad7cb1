/** Names of content-addressed blobs and the check that bytes are what their name says. */
import { createHash } from 'node:crypto'
import { BlobError, MissingBlobError } from './bus.ts'

/** `sha256-<64 hex digits>` of the bytes. */
export const blobName = (bytes: Uint8Array): string => `sha256-${createHash('sha256').update(bytes).digest('hex')}`

/** Throws BlobError unless the bytes have this name. */
export function verifyBlob(name: string, bytes: Uint8Array): void {
  const actual = blobName(bytes)
  if (actual === name) return
  throw new BlobError(`blob ${name} is corrupt: its ${bytes.length} bytes hash to ${actual}; store it again`)
}

export const missingBlob = (name: string): BlobError =>
  new MissingBlobError(`blob ${name} is missing: it was deleted, or it belongs to another run`)
