/** Blobs in JetStream's object store. */
import type { Lifetime } from '../lifetime.ts'
import { stores } from '../subjects.ts'
import type { BlobLink } from './blob-link.ts'
import type { BlobPlace } from './blobs.ts'
import { patiently } from './patience.ts'
import { readBlob } from './read-blob.ts'
import { writeBlob } from './write-blob.ts'

export class ObjectBlobs implements BlobPlace {
  readonly #link: BlobLink
  readonly #life: Lifetime

  constructor(link: BlobLink, life: Lifetime) {
    this.#link = link
    this.#life = life
  }

  store(name: string, bytes: Uint8Array): Promise<void> {
    return this.#patiently(`storing blob ${name}`, async () => {
      const info = await this.#link.objects.info(name)
      if (info !== null && !info.deleted && info.size === bytes.length) return
      await writeBlob(this.#link, stores.blobs(this.#link.run), name, bytes)
    })
  }

  fetch(name: string): Promise<Uint8Array> {
    return this.#patiently(`fetching blob ${name}`, () => readBlob(this.#link, name))
  }

  async delete(name: string): Promise<void> {
    await this.#patiently(`deleting blob ${name}`, () => this.#link.objects.delete(name))
  }

  #patiently<T>(what: string, attempt: () => Promise<T>): Promise<T> {
    return patiently(this.#link, this.#life, what, attempt)
  }
}
