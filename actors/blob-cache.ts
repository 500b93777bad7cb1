/** Blobs kept in memory, least recently used first out, bounded by bytes. */
import type { Bus } from '../bus/bus.ts'

export class BlobCache {
  readonly #bus: Bus
  readonly #maxBytes: number
  readonly #known = new Map<string, Uint8Array>()
  #bytes = 0

  constructor(bus: Bus, maxBytes: number) {
    this.#bus = bus
    this.#maxBytes = maxBytes
  }

  async get(name: string): Promise<Uint8Array> {
    const known = this.#known.get(name)
    if (known) {
      this.#known.delete(name)
      this.#known.set(name, known)
      return known
    }
    const bytes = await this.#bus.getBlob(name)
    if (!this.#known.has(name)) {
      this.#known.set(name, bytes)
      this.#bytes += bytes.length
    }
    for (const [oldest, old] of this.#known) {
      if (this.#bytes <= this.#maxBytes || oldest === name) break
      this.#known.delete(oldest)
      this.#bytes -= old.length
    }
    return bytes
  }
}
