/**
 * Weights of a model inside a graph: trainable ones are graph inputs (a swap passes other tensors), frozen ones are
 * initialisers. A linear layer may carry a LoRA adapter (Hu et al. 2021, PEFT semantics: y += α/r · B(A x)).
 */
import { type Graph, GraphError, type Value } from '../graph/graph.ts'
import { add, after, cast, gather, linear, matmul } from '../graph/ops.ts'
import { type FrozenWeights, isStored } from '../io/stored-tensor.ts'
import { sizeOf } from '../tensor.ts'

export interface LoraShape {
  readonly r: number
  readonly alpha: number
}

/** Adapter tensors of a linear layer, under PEFT's names. */
export const loraNames = (module: string): { a: string; b: string } => ({
  a: `base_model.model.${module}.lora_A.weight`,
  b: `base_model.model.${module}.lora_B.weight`,
})

/**
 * What becomes of frozen 16-bit weights: float32 in the session once for all (`once`), or the file's pages, from which
 * each use makes a float32 copy of its own (`use`).
 */
export type Widening = 'once' | 'use'

/** Smaller weights are always widened once. */
const LEAST_BYTES = 2 ** 12

export class Parameters {
  readonly #values = new Map<string, Value>()

  /**
   * @param frozen tensors baked into the graph, used for names that are not trainable.
   * @param trainable names and shapes of the graph inputs: checkpoint names, or LoRA names of linear layers.
   */
  constructor(
    readonly graph: Graph,
    private readonly frozen: FrozenWeights,
    private readonly trainable: ReadonlyMap<string, readonly number[]>,
    private readonly lora: LoraShape | null,
    private readonly widening: Widening = 'once',
  ) {}

  /** A weight under its checkpoint name, float32; one that is widened at each use, not before `x` is there. */
  weight(name: string, x?: Value): Value {
    const value = this.#value(name)
    if (value.dtype === 'float32') return value
    const bytes = 2 * sizeOf(value.dims as readonly number[])
    if (x && this.widening === 'use' && bytes >= LEAST_BYTES) return cast(after(value, [x]), 'float32')
    const key = `${name} as float32`
    const wide = this.#values.get(key) ?? cast(value, 'float32')
    this.#values.set(key, wide)
    return wide
  }

  /** Rows of a table under its checkpoint name: [...index, width] float32. No more of it is widened. */
  rows(name: string, index: Value): Value {
    return cast(gather(this.#value(name), index), 'float32')
  }

  /** As it is stored. */
  #value(name: string): Value {
    let value = this.#values.get(name)
    if (!value) {
      value = this.#create(name)
      this.#values.set(name, value)
    }
    return value
  }

  #create(name: string): Value {
    const dims = this.trainable.get(name)
    if (dims) return this.graph.input(name, 'float32', dims)
    const tensor = this.frozen[name]
    if (!tensor) throw new GraphError(`the checkpoint has no tensor "${name}"`)
    return isStored(tensor) ? this.graph.stored(name, tensor) : this.graph.initializer(name, tensor)
  }

  /** x [..., in] through the linear layer `module` (its weight, its bias if asked for, its adapter if it has one). */
  linear(module: string, x: Value, bias = false): Value {
    const y = linear(x, this.weight(`${module}.weight`, x), bias ? this.weight(`${module}.bias`) : undefined)
    const { a, b } = loraNames(module)
    if (!this.lora || !this.trainable.has(a)) return y
    const low = linear(x, this.weight(a))
    return add(y, matmul(low, this.weight(b), { transB: true, alpha: this.lora.alpha / this.lora.r }))
  }

  /** Trainable values that the graph really uses, by name. */
  used(): ReadonlyMap<string, Value> {
    return new Map([...this.#values].filter(([name]) => this.trainable.has(name)))
  }
}
