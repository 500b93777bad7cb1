/** Content-addressed blobs of a run in JetStream's object store, with those last used kept in memory. */
import { LRUCache } from 'lru-cache'
import { blobName, verifyBlob } from '../blob-name.ts'
import { BlobError } from '../bus.ts'
import type { Lifetime } from '../lifetime.ts'
import { stores } from '../subjects.ts'
import type { BlobLink } from './blob-link.ts'
import { patiently } from './patience.ts'
import { readBlob } from './read-blob.ts'
import { writeBlob } from './write-blob.ts'

const ATTEMPTS = 3

export class NatsBlobs {
  readonly #link: BlobLink
  readonly #life: Lifetime
  readonly #cache: LRUCache<string, Uint8Array>
  /** Transfers under way, so that actors of one process share them. */
  readonly #puts = new Map<string, Promise<void>>()
  readonly #gets = new Map<string, Promise<Uint8Array>>()

  constructor(link: BlobLink, life: Lifetime, cacheBytes: number) {
    this.#link = link
    this.#life = life
    this.#cache = new LRUCache({ maxSize: cacheBytes, sizeCalculation: (bytes) => bytes.length + 1 })
  }

  async put(bytes: Uint8Array): Promise<string> {
    const name = blobName(bytes)
    if (!this.#cache.has(name)) await once(this.#puts, name, () => this.#store(name, bytes.slice()))
    return name
  }

  async get(name: string): Promise<Uint8Array> {
    return this.#cache.get(name) ?? once(this.#gets, name, () => this.#fetch(name))
  }

  async delete(name: string): Promise<void> {
    this.#cache.delete(name)
    await this.#patiently(`deleting blob ${name}`, () => this.#link.objects.delete(name))
  }

  async #store(name: string, bytes: Uint8Array): Promise<void> {
    await this.#patiently(`storing blob ${name}`, async () => {
      const info = await this.#link.objects.info(name)
      if (info !== null && !info.deleted && info.size === bytes.length) return
      await writeBlob(this.#link, stores.blobs(this.#link.run), name, bytes)
    })
    this.#cache.set(name, bytes)
  }

  /** Another process that stores the same blob at this moment may replace its chunks under our hands: hence attempts. */
  async #fetch(name: string): Promise<Uint8Array> {
    for (let attempt = 1; ; attempt++) {
      try {
        const bytes = await this.#patiently(`fetching blob ${name}`, () => readBlob(this.#link, name))
        verifyBlob(name, bytes)
        this.#cache.set(name, bytes)
        return bytes
      } catch (error) {
        if (!(error instanceof BlobError) || attempt === ATTEMPTS) throw error
      }
    }
  }

  #patiently<T>(what: string, attempt: () => Promise<T>): Promise<T> {
    return patiently(this.#link, this.#life, what, attempt)
  }
}

/** Runs `work` unless it is under way for this name. */
function once<T>(running: Map<string, Promise<T>>, name: string, work: () => Promise<T>): Promise<T> {
  const known = running.get(name)
  if (known) return known
  const promise = work().finally(() => running.delete(name))
  running.set(name, promise)
  return promise
}
