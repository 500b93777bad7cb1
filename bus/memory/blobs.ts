/** Content-addressed blobs in memory. */
import type { BlobStore } from '../codec.ts'
import { blobName, missingBlob, verifyBlob } from '../blob-name.ts'

export class MemoryBlobs implements BlobStore {
  readonly #blobs = new Map<string, Uint8Array>()
  /** Those whose bytes are not what they were when they were named: the others need not be hashed at every read. */
  readonly #damaged = new Set<string>()

  putBlob(bytes: Uint8Array): Promise<string> {
    const name = blobName(bytes)
    if (!this.#blobs.has(name)) this.#blobs.set(name, bytes)
    return Promise.resolve(name)
  }

  async getBlob(name: string): Promise<Uint8Array> {
    const bytes = this.#blobs.get(name)
    if (!bytes) throw missingBlob(name)
    if (this.#damaged.has(name)) verifyBlob(name, bytes)
    return Promise.resolve(bytes)
  }

  delete(name: string): void {
    this.#blobs.delete(name)
    this.#damaged.delete(name)
  }

  corrupt(name: string): void {
    const bytes = this.#blobs.get(name)
    if (!bytes) throw missingBlob(name)
    const damaged = bytes.slice()
    damaged[0] = (damaged[0] ?? 0) ^ 1
    this.#blobs.set(name, damaged)
    this.#damaged.add(name)
  }
}
