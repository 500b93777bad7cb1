/** The weights of a checkpoint folder as training has changed them, read one at a time. */
import { CheckpointError } from '../io/checkpoint-error.ts'
import { assertFinite, type Checkpoint } from '../io/safetensors.ts'
import { type LoraShape, loraNames } from '../layers/parameters.ts'
import type { HostTensor, Weights } from '../tensor.ts'
import type { Family } from './family.ts'
import { adaptedLayers, mergeLora } from './lora.ts'
import type { ExpectedWeight } from '../layers/weights.ts'
import { checkTensors, storedNames } from './stored-weights.ts'

/** What training has changed: an adapter (`lora` is its shape), or weights under canonical names. */
export interface Trained {
  readonly lora: LoraShape | null
  readonly weights: Weights
}

/** Whole weights float32 under canonical names; an adapter is folded in. */
export class WholeWeights {
  readonly #stored: ReadonlyMap<string, string>

  /** Throws CheckpointError when the checkpoint lacks an expected weight, or the adapter's layers are not its own. */
  constructor(
    family: Family,
    expected: readonly ExpectedWeight[],
    private readonly checkpoint: Checkpoint,
    private readonly trained: Trained,
  ) {
    this.#stored = storedNames(family, checkpoint)
    checkTensors(expected, checkpoint, this.#stored)
    const { lora, weights } = trained
    const foreign = lora && adaptedLayers({ shape: lora, weights }).find((name) => !this.#stored.has(name))
    if (foreign)
      throw new CheckpointError(`the adapter changes "${foreign}", which this model does not have`, {
        file: checkpoint.dir,
      })
  }

  has(name: string): boolean {
    return this.#stored.has(name)
  }

  /** Throws a CheckpointError when a value is not finite. */
  async read(name: string): Promise<HostTensor<'float32'>> {
    const { lora, weights } = this.trained
    const own = weights[name]
    if (own) return own
    const stored = this.#stored.get(name) ?? name
    const base = await this.checkpoint.readF32(stored)
    assertFinite(stored, base, this.checkpoint.info(stored).file)
    const { a, b } = loraNames(name.replace(/\.weight$/, ''))
    const [down, up] = [weights[a], weights[b]]
    if (!lora || !down) return base
    return mergeLora({ [name]: base }, { shape: lora, weights: { [a]: down, ...(up && { [b]: up }) } })[name]!
  }
}
