/**
 * Weights of a model inside a graph: trainable ones are graph inputs (a swap passes other tensors), frozen ones are
 * initialisers, those of linear layers rounded where the graph only samples. A linear layer may carry a LoRA adapter (Hu
 * et al. 2021, PEFT semantics: y += α/r · B(A x)), which is never rounded.
 */
import { type Graph, GraphError, type Value } from '../graph/graph.ts'
import { add, linear, linearInt8, linearQ4, matmul } from '../graph/ops.ts'
import type { HostTensor, Weights } from '../tensor.ts'
import { type Precision, Q4_BLOCK, roundInt8, roundQ4 } from './precision.ts'

export interface LoraShape {
  readonly r: number
  readonly alpha: number
}

/** Adapter tensors of a linear layer, under PEFT's names. */
export const loraNames = (module: string): { a: string; b: string } => ({
  a: `base_model.model.${module}.lora_A.weight`,
  b: `base_model.model.${module}.lora_B.weight`,
})

/** The numbers of a frozen weight, wherever it is kept. */
const frozenFloats = (tensor: HostTensor<'float32'>): Float32Array => tensor.data

export class Parameters {
  readonly #values = new Map<string, Value>()
  readonly #rounded = new Map<string, (x: Value) => Value>()

  /**
   * @param frozen tensors baked into the graph, used for names that are not trainable.
   * @param trainable names and shapes of the graph inputs: checkpoint names, or LoRA names of linear layers.
   * @param precision of the frozen weights of linear layers; other than float32 there are no gradients.
   */
  constructor(
    readonly graph: Graph,
    private readonly frozen: Weights,
    private readonly trainable: ReadonlyMap<string, readonly number[]>,
    private readonly lora: LoraShape | null,
    private readonly precision: Precision = 'fp32',
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
    return this.graph.initializer(name, tensor)
  }

  /** x [..., in] through the linear layer `module` (its weight, its bias if asked for, its adapter if it has one). */
  linear(module: string, x: Value, bias = false): Value {
    const product = this.product(`${module}.weight`, x)
    const y = bias ? add(product, this.weight(`${module}.bias`)) : product
    const { a, b } = loraNames(module)
    if (!this.lora || !this.trainable.has(a)) return y
    const low = linear(x, this.weight(a))
    return add(y, matmul(low, this.weight(b), { transB: true, alpha: this.lora.alpha / this.lora.r }))
  }

  /** x [..., in] · Wᵀ for the weight `name` [out, in], rounded to the precision of these parameters where it is frozen. */
  product(name: string, x: Value): Value {
    const tensor = this.trainable.has(name) ? undefined : this.frozen[name]
    if (this.precision === 'fp32' || !tensor) return linear(x, this.weight(name))
    let times = this.#rounded.get(name)
    if (!times) {
      times = this.#round(name, tensor, this.precision)
      this.#rounded.set(name, times)
    }
    return times(x)
  }

  #round(name: string, tensor: HostTensor<'float32'>, precision: Exclude<Precision, 'fp32'>): (x: Value) => Value {
    const [out, into] = tensor.dims as [number, number]
    const floats = frozenFloats(tensor)
    const rounded = precision === 'int8' ? roundInt8(floats, [out, into]) : roundQ4(floats, [out, into])
    const weight = this.graph.initializer(`${name}.${precision}`, rounded.weight)
    const scales = this.graph.initializer(`${name}.scales`, rounded.scales)
    return (x) => (precision === 'int8' ? linearInt8(x, weight, scales) : linearQ4(x, weight, scales, Q4_BLOCK))
  }

  /** Trainable values that the graph really uses, by name. */
  used(): ReadonlyMap<string, Value> {
    return new Map([...this.#values].filter(([name]) => this.trainable.has(name)))
  }
}
