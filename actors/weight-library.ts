/**
 * Brings the weights of a version into a model: fetched by content, verified, a few kept decoded. Actors of one process
 * share the bytes.
 */
import type { Bus } from '../bus/bus.ts'
import type { Model } from '../models/model.ts'
import type { Weights } from '../models/tensor.ts'
import { versionId } from './ids.ts'
import { decodeWeights } from './weights-codec.ts'

/** Decoded adapters kept: the newest and one that is being evaluated. */
const KEPT = 2

export class WeightLibrary {
  readonly #bus: Bus
  readonly #model: Model
  readonly #decoded = new Map<string, Weights>()
  #loaded = ''

  constructor(bus: Bus, model: Model) {
    this.#bus = bus
    this.#model = model
  }

  /**
   * Loads an adapter by the name of its blob. On any error (BlobError, a tensor that does not fit, a NaN) the model
   * keeps the weights that it had.
   */
  async load(adapter: string): Promise<void> {
    if (adapter === this.#loaded) return
    const weights = this.#decoded.get(adapter) ?? decodeWeights(await this.#bus.viewBlob(adapter), adapter)
    this.#model.load(weights)
    this.#loaded = adapter
    this.#decoded.delete(adapter)
    this.#decoded.set(adapter, weights)
    for (const oldest of this.#decoded.keys()) {
      if (this.#decoded.size <= KEPT) break
      this.#decoded.delete(oldest)
    }
  }

  /** Name of the adapter of a committed version; throws when the log does not know it. */
  async adapterOf(version: number): Promise<string> {
    const record = await this.#bus.find('version', versionId(version))
    if (!record) throw new Error(`version ${version} is not in the log`)
    return record.message.data.adapter
  }
}
