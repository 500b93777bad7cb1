/**
 * A typed dataflow graph: what is differentiated (autodiff.ts) and emitted as ONNX (onnx.ts).
 *
 * Dims may be symbolic (`'I'`, `'I*N'`), so that one session serves every batch size. Two symbolic dims are equal when
 * their canonical products are equal; broadcasting is decided statically (equal, or one of them is the literal 1).
 */
import type { StoredTensor } from '../io/stored-tensor.ts'
import type { DType, HostTensor } from '../tensor.ts'
import type { OpAttrs, OpName } from './op-attrs.ts'

/** A size: a number, or a product of symbols with a numeric factor, e.g. `4*I*N`. */
export type Dim = number | string
export type Dims = readonly Dim[]

/** Canonical product of sizes: a number if all are numbers, else `factor*A*B` with sorted symbols. */
export function product(dims: Dims): Dim {
  let factor = 1
  const symbols: string[] = []
  for (const d of dims) {
    if (typeof d === 'number') factor *= d
    else
      for (const part of d.split('*')) {
        if (/^\d+$/.test(part)) factor *= Number(part)
        else symbols.push(part)
      }
  }
  if (symbols.length === 0 || factor === 0) return factor
  return [...(factor === 1 ? [] : [String(factor)]), ...symbols.sort()].join('*')
}

/** Sum of sizes; a symbolic one reads `(A+B)` and is a symbol of its own in products. */
export function sum(dims: Dims): Dim {
  const terms = dims.flatMap((d) => (typeof d === 'string' && d.startsWith('(') ? d.slice(1, -1).split('+') : [d]))
  const known = terms.reduce<number>((n, d) => (typeof d === 'number' || /^\d+$/.test(d) ? n + Number(d) : n), 0)
  const symbols = terms.filter((d): d is string => typeof d === 'string' && !/^\d+$/.test(d)).sort()
  if (symbols.length === 0) return known
  const parts = [...symbols, ...(known === 0 ? [] : [String(known)])]
  return parts.length === 1 ? parts[0]! : `(${parts.join('+')})`
}

/** a − b where the terms of b occur in a, or both are numbers. */
export function difference(a: Dim, b: Dim): Dim {
  if (b === 0) return a
  if (typeof a === 'number' && typeof b === 'number') return a - b
  const terms = String(a)
    .replace(/^\(|\)$/g, '')
    .split('+')
  const at = terms.indexOf(String(b))
  if (at < 0) throw new GraphError(`cannot take ${b} from ${a}`)
  terms.splice(at, 1)
  return sum(terms.map((t) => (/^\d+$/.test(t) ? Number(t) : t)))
}

/** `[2, I, N]` for messages. */
export function showDims(dims: Dims): string {
  return `[${dims.join(', ')}]`
}

/** Element types of values: of host tensors, and of weights as checkpoints store them. */
export type ValueType = DType | 'bfloat16' | 'float16'

const STORED_AS = { F32: 'float32', BF16: 'bfloat16', F16: 'float16' } as const

export class Value {
  constructor(
    readonly graph: Graph,
    readonly id: number,
    readonly dtype: ValueType,
    readonly dims: Dims,
  ) {}

  /** Size along an axis; negative axes count from the end. */
  dim(axis: number): Dim {
    const d = this.dims.at(axis)
    if (d === undefined) throw new GraphError(`axis ${axis} is outside ${showDims(this.dims)}`)
    return d
  }

  get rank(): number {
    return this.dims.length
  }
}

/** An application of an op; generic over its name so that attributes stay typed. */
export interface Node<K extends OpName = OpName> {
  readonly op: K
  readonly inputs: readonly Value[]
  readonly outputs: readonly Value[]
  readonly attrs: OpAttrs[K]
}

export class GraphError extends Error {
  override name = 'GraphError'
}

export type Source =
  | { readonly kind: 'input'; readonly name: string; readonly value: Value }
  | { readonly kind: 'initializer'; readonly name: string; readonly value: Value; readonly tensor: HostTensor }
  | { readonly kind: 'stored'; readonly name: string; readonly value: Value; readonly tensor: StoredTensor }

/** Consecutive nodes that the backward pass may compute again (autodiff.ts) instead of keeping their values. */
export interface Segment {
  /** What comes from before and is kept. */
  readonly inputs: readonly Value[]
  /** Half-open range of nodes. */
  readonly start: number
  readonly end: number
}

/** Collects nodes in topological order. Build with the functions of ops.ts. */
export class Graph {
  readonly nodes: Node[] = []
  readonly sources: Source[] = []
  /** In order, without overlap. */
  readonly segments: Segment[] = []
  readonly producer = new Map<Value, Node>()
  readonly #names = new Map<string, Value>()
  readonly #constants = new Map<string, Value>()
  #nextId = 0

  /** A graph input, fed at every run. Dims may be symbolic. */
  input(name: string, dtype: DType, dims: Dims): Value {
    const value = this.#fresh(name, dtype, dims)
    this.sources.push({ kind: 'input', name, value })
    return value
  }

  /** A frozen tensor inside the model (prepacked by the runtime). */
  initializer(name: string, tensor: HostTensor): Value {
    const value = this.#fresh(name, tensor.dtype, tensor.dims)
    this.sources.push({ kind: 'initializer', name, value, tensor })
    return value
  }

  /** A frozen tensor that the runtime maps from its file. */
  stored(name: string, tensor: StoredTensor): Value {
    const value = this.#fresh(name, STORED_AS[tensor.dtype], tensor.dims)
    this.sources.push({ kind: 'stored', name, value, tensor })
    return value
  }

  /**
   * Marks what `build` adds as a segment: a layer, of which the backward pass may keep nothing but `inputs`, the
   * activations that come from the layer before.
   */
  segment<T>(inputs: readonly Value[], build: () => T): T {
    const start = this.nodes.length
    const result = build()
    if ((this.segments.at(-1)?.end ?? 0) > start) throw new GraphError('a segment inside a segment')
    this.segments.push({ inputs, start, end: this.nodes.length })
    return result
  }

  /** A small constant; equal ones are shared. */
  constant(tensor: HostTensor): Value {
    const key = `${tensor.dtype}${showDims(tensor.dims)}${tensor.data.length <= 64 ? tensor.data.join() : this.#nextId}`
    let value = this.#constants.get(key)
    if (!value) {
      value = this.initializer(`const_${this.#constants.size}`, tensor)
      this.#constants.set(key, value)
    }
    return value
  }

  /** Appends a node; the rule tables are consulted by the caller (ops.ts). */
  add<K extends OpName>(
    op: K,
    inputs: readonly Value[],
    attrs: OpAttrs[K],
    outputs: readonly { dtype: ValueType; dims: Dims }[],
  ): readonly Value[] {
    for (const v of inputs) if (v.graph !== this) throw new GraphError(`${op}: an input belongs to another graph`)
    const values = outputs.map((o) => new Value(this, this.#nextId++, o.dtype, o.dims))
    const node = { op, inputs, attrs, outputs: values } as Node
    this.nodes.push(node)
    for (const v of values) this.producer.set(v, node)
    return values
  }

  #fresh(name: string, dtype: ValueType, dims: Dims): Value {
    if (this.#names.has(name)) throw new GraphError(`the name "${name}" is taken`)
    const value = new Value(this, this.#nextId++, dtype, dims)
    this.#names.set(name, value)
    return value
  }
}
