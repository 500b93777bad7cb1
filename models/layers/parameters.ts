/**
 * Weights of a model inside a graph: trainable ones are graph inputs (a swap passes other tensors), frozen ones are
 * initialisers, which onnxruntime packs for its products, or inputs where a device keeps one copy for all graphs. A linear layer may carry a LoRA adapter (Hu et al. 2021, PEFT semantics: y += α/r · B(A x)).
 */
import { type Graph, GraphError, type Value } from '../graph/graph.ts'
import { add, linear, matmul } from '../graph/ops.ts'
import type { Weights } from '../tensor.ts'

export interface LoraShape {
  readonly r: number
  readonly alpha: number
}

/** Adapter tensors of a linear layer, under PEFT's names. */
export const loraNames = (module: string): { a: string; b: string } => ({
  a: `base_model.model.${module}.lora_A.weight`,
  b: `base_model.model.${module}.lora_B.weight`,
})

export class Parameters {
  readonly #values = new Map<string, Value>()

  /**
   * @param frozen tensors for names that are not trainable: baked into the graph, or inputs of it where `shared`, so that
   *   several graphs use one copy.
   * @param trainable names and shapes of the graph inputs: checkpoint names, or LoRA names of linear layers.
   */
  constructor(
    readonly graph: Graph,
    private readonly frozen: Weights,
    private readonly trainable: ReadonlyMap<string, readonly number[]>,
    private readonly lora: LoraShape | null,
    private readonly shared = false,
  ) {}

  /** A weight under its checkpoint name. */
  weight(name: string): Value {
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
    return this.shared ? this.graph.input(name, 'float32', tensor.dims) : this.graph.initializer(name, tensor)
  }

  /** x [..., in] through the linear layer `module` (its weight, its bias if asked for, its adapter if it has one). */
  linear(module: string, x: Value, bias = false): Value {
    const y = linear(x, this.weight(`${module}.weight`), bias ? this.weight(`${module}.bias`) : undefined)
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
