/** Content-addressed blobs of a run, wherever they are kept, with those last used in memory. */
import { LRUCache } from 'lru-cache'
import { blobName, verifyBlob } from '../blob-name.ts'
import { BlobError } from '../bus.ts'

const ATTEMPTS = 3

/** Keeps bytes under names. */
export interface BlobPlace {
  /** Resolves when they outlast this process; again is free. */
  store(name: string, bytes: Uint8Array): Promise<void>
  /** Not yet verified. Throws BlobError for what is not there, or not whole. */
  fetch(name: string): Promise<Uint8Array>
  delete(name: string): Promise<void>
}

export class NatsBlobs {
  readonly #place: BlobPlace
  readonly #cache: LRUCache<string, Uint8Array>
  /** Transfers under way, so that actors of one process share them. */
  readonly #puts = new Map<string, Promise<void>>()
  readonly #gets = new Map<string, Promise<Uint8Array>>()

  constructor(place: BlobPlace, cacheBytes: number) {
    this.#place = place
    this.#cache = new LRUCache({ maxSize: cacheBytes, sizeCalculation: (bytes) => bytes.length + 1 })
  }

  async put(bytes: Uint8Array): Promise<string> {
    const name = blobName(bytes)
    if (!this.#cache.has(name)) await once(this.#puts, name, () => this.#store(name, bytes))
    return name
  }

  async get(name: string): Promise<Uint8Array> {
    return this.#cache.get(name) ?? once(this.#gets, name, () => this.#fetch(name))
  }

  async delete(name: string): Promise<void> {
    this.#cache.delete(name)
    await this.#place.delete(name)
  }

  async #store(name: string, bytes: Uint8Array): Promise<void> {
    await this.#place.store(name, bytes)
    this.#cache.set(name, bytes)
  }

  /** Another process that stores the same blob at this moment may replace its chunks under our hands: hence attempts. */
  async #fetch(name: string): Promise<Uint8Array> {
    for (let attempt = 1; ; attempt++) {
      try {
        const bytes = await this.#place.fetch(name)
        verifyBlob(name, bytes)
        this.#cache.set(name, bytes)
        return bytes
      } catch (error) {
        if (!(error instanceof BlobError) || attempt === ATTEMPTS) throw error
      }
    }
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
