/**
 * Weights of a model inside a graph: trainable ones are graph inputs (a swap passes other tensors), frozen ones are
 * initialisers, which onnxruntime packs for its products, those of linear layers rounded where the graph only samples; or
 * inputs where a device keeps one copy for all graphs. A linear layer may carry a LoRA adapter (Hu et al. 2021, PEFT
 * semantics: y += α/r · B(A x)), which is never rounded.
 */
import { type Graph, GraphError, type Value } from '../graph/graph.ts'
import { add, after, cast, gather, linear, linearInt8, linearQ4, matmul } from '../graph/ops.ts'
import { floatsOf, type FrozenWeight, type FrozenWeights, isStored } from '../io/stored-tensor.ts'
import { f32, sizeOf } from '../tensor.ts'
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

/**
 * What becomes of frozen 16-bit weights: float32 in the session once for all (`once`), or the file's pages, from which
 * each use makes a float32 copy of its own (`use`).
 */
export type Widening = 'once' | 'use'

/** Smaller weights are always widened once. */
const LEAST_BYTES = 2 ** 12

export interface ParameterOptions {
  readonly widening?: Widening
  /** Of the frozen weights of linear layers; other than float32 there are no gradients. */
  readonly precision?: Precision
  /** Frozen weights that are not rounded are fed, so that several graphs use one copy. */
  readonly shared?: boolean
}

export class Parameters {
  readonly #values = new Map<string, Value>()
  readonly #rounded = new Map<string, (x: Value) => Value>()
  readonly #widening: Widening
  readonly #precision: Precision
  readonly #shared: boolean

  /**
   * @param frozen tensors for names that are not trainable: baked into the graph, or inputs of it where `shared`.
   * @param trainable names and shapes of the graph inputs: checkpoint names, or LoRA names of linear layers.
   */
  constructor(
    readonly graph: Graph,
    private readonly frozen: FrozenWeights,
    private readonly trainable: ReadonlyMap<string, readonly number[]>,
    private readonly lora: LoraShape | null,
    { widening = 'once', precision = 'fp32', shared = false }: ParameterOptions = {},
  ) {
    this.#widening = widening
    this.#precision = precision
    this.#shared = shared
  }

  /** A weight under its checkpoint name, float32; one that is widened at each use, not before `x` is there. */
  weight(name: string, x?: Value): Value {
    const value = this.#value(name)
    if (value.dtype === 'float32') return value
    const bytes = 2 * sizeOf(value.dims as readonly number[])
    if (x && this.#widening === 'use' && bytes >= LEAST_BYTES) return cast(after(value, [x]), 'float32')
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
    if (this.#shared) return this.graph.input(name, 'float32', tensor.dims)
    if (!isStored(tensor)) return this.graph.initializer(name, tensor)
    // Rounded weights are in memory, and onnxruntime takes those of a graph from memory or from files, not from both.
    if (this.#precision === 'fp32') return this.graph.stored(name, tensor)
    return this.graph.initializer(name, f32(floatsOf(tensor), tensor.dims))
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
    if (this.#precision === 'fp32' || !tensor) return linear(x, this.weight(name, x))
    let times = this.#rounded.get(name)
    if (!times) {
      times = this.#round(name, tensor, this.#precision)
      this.#rounded.set(name, times)
    }
    return times(x)
  }

  #round(name: string, tensor: FrozenWeight, precision: Exclude<Precision, 'fp32'>): (x: Value) => Value {
    const [out, into] = tensor.dims as [number, number]
    const floats = floatsOf(tensor)
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
