/** Collects ONNX nodes, small constants and run-time sizes while a graph is emitted. */
import { create } from '@bufbuild/protobuf'
import {
  AttributeProto_AttributeType as AttributeType,
  AttributeProtoSchema,
  type NodeProto,
  NodeProtoSchema,
  type TensorProto,
  TensorProto_DataType as OnnxType,
  TensorProtoSchema,
} from 'onnx-buf'
import { type Dim, type Dims, GraphError, type ValueType } from './graph.ts'

export const DATA_TYPE: Readonly<Record<ValueType, OnnxType>> = {
  float32: OnnxType.FLOAT,
  bfloat16: OnnxType.BFLOAT16,
  float16: OnnxType.FLOAT16,
  int32: OnnxType.INT32,
  int64: OnnxType.INT64,
  int8: OnnxType.INT8,
  uint8: OnnxType.UINT8,
  bool: OnnxType.BOOL,
}

/** Bytes of one element. */
export const itemBytes: Readonly<Record<ValueType, number>> = {
  float32: 4,
  bfloat16: 2,
  float16: 2,
  int32: 4,
  int64: 8,
  int8: 1,
  uint8: 1,
  bool: 1,
}

/** Marks a number as an ONNX float attribute; plain numbers are integers. */
class FloatAttr {
  constructor(readonly value: number) {}
}
type Attr = number | string | FloatAttr | readonly number[]
export type NodeAttrs = Readonly<Record<string, Attr>>

/** Where a symbolic size is read at run time: an axis of a value, whose length is `factor` times the size. */
export interface SizeSource {
  readonly value: string
  readonly axis: number
  readonly factor: number
}

export class Writer {
  readonly nodes: NodeProto[] = []
  readonly constants: TensorProto[] = []
  readonly #cache = new Map<string, string>()
  #next = 0

  /** `sizes` names, for every symbol, a value that carries it. */
  constructor(private readonly sizes: ReadonlyMap<string, SizeSource>) {}

  fresh(hint: string): string {
    return `${hint}#${this.#next++}`
  }

  float(value: number): FloatAttr {
    return new FloatAttr(value)
  }

  node(opType: string, input: readonly string[], output: readonly string[], attrs: NodeAttrs = {}, domain = ''): void {
    const attribute = Object.entries(attrs).map(([name, v]) => {
      if (v instanceof FloatAttr) return create(AttributeProtoSchema, { name, type: AttributeType.FLOAT, f: v.value })
      if (typeof v === 'number') return create(AttributeProtoSchema, { name, type: AttributeType.INT, i: BigInt(v) })
      if (typeof v === 'string')
        return create(AttributeProtoSchema, { name, type: AttributeType.STRING, s: new TextEncoder().encode(v) })
      return create(AttributeProtoSchema, { name, type: AttributeType.INTS, ints: v.map((x) => BigInt(x)) })
    })
    const name = `${opType}_${this.nodes.length}`
    this.nodes.push(
      create(NodeProtoSchema, { name, opType, domain, input: [...input], output: [...output], attribute }),
    )
  }

  /** The name of something made once per graph. */
  cached(key: string, make: (name: string) => void): string {
    let name = this.#cache.get(key)
    if (!name) {
      name = this.fresh('v')
      this.#cache.set(key, name)
      make(name)
    }
    return name
  }

  #constant(key: string, dataType: OnnxType, dims: readonly number[], data: ArrayBufferView): string {
    return this.cached(key, (name) => {
      const rawData = new Uint8Array(
        data.buffer.slice(data.byteOffset, data.byteOffset + data.byteLength) as ArrayBuffer,
      )
      this.constants.push(create(TensorProtoSchema, { name, dataType, dims: dims.map(BigInt), rawData }))
    })
  }

  int64s(values: readonly number[]): string {
    const data = BigInt64Array.from(values, (v) => BigInt(v))
    return this.#constant(`i64[${values.join()}]`, OnnxType.INT64, [values.length], data)
  }

  /** An int32 scalar. */
  int32(value: number): string {
    return this.#constant(`i32 ${value}`, OnnxType.INT32, [], Int32Array.of(value))
  }

  int32s(values: readonly number[]): string {
    return this.#constant(`i32[${values.join()}]`, OnnxType.INT32, [values.length], Int32Array.from(values))
  }

  /** A float32 scalar. */
  float32(value: number): string {
    return this.#constant(`f32 ${value}`, OnnxType.FLOAT, [], Float32Array.of(value))
  }

  /** A uint8 scalar. */
  uint8(value: number): string {
    return this.#constant(`u8 ${value}`, OnnxType.UINT8, [], Uint8Array.of(value))
  }

  float32s(values: readonly number[]): string {
    return this.#constant(`f32[${values.join()}]`, OnnxType.FLOAT, [values.length], Float32Array.from(values))
  }

  /** int64 vector of sizes, computed at run time where they are symbolic. */
  shape(dims: Dims): string {
    if (dims.every((d) => typeof d === 'number')) return this.int64s(dims)
    return this.cached(`shape[${dims.join()}]`, (name) => {
      this.node(
        'Concat',
        dims.map((d) => this.#size(d)),
        [name],
        { axis: 0 },
      )
    })
  }

  /** 0..size−1 as int32. */
  range(size: Dim): string {
    return this.cached(`range ${size}`, (name) => {
      const [scalar, narrow] = [this.fresh('size'), this.fresh('size')]
      this.node('Squeeze', [this.shape([size]), this.int64s([0])], [scalar])
      this.node('Cast', [scalar], [narrow], { to: DATA_TYPE.int32 })
      this.node('Range', [this.int32(0), narrow, this.int32(1)], [name])
    })
  }

  /** One size as an int64 vector of length 1: products of symbols and of sums of symbols. */
  #size(d: Dim): string {
    if (typeof d === 'number' || /^\d+$/.test(d)) return this.int64s([Number(d)])
    return this.cached(`size ${d}`, (name) => {
      if (d.includes('*')) return this.#fold('Mul', splitProduct(d), name)
      if (d.startsWith('(')) return this.#fold('Add', d.slice(1, -1).split('+'), name)
      const source = this.sizes.get(d)
      if (!source) throw new GraphError(`the symbolic size ${d} is carried by no graph input`)
      const attrs = { start: source.axis, end: source.axis + 1 }
      if (source.factor === 1) return this.node('Shape', [source.value], [name], attrs)
      const length = this.fresh('size')
      this.node('Shape', [source.value], [length], attrs)
      this.node('Div', [length, this.int64s([source.factor])], [name])
    })
  }

  #fold(opType: string, parts: readonly string[], name: string): void {
    const last = parts.length - 1
    let left = this.#size(parts[0]!)
    for (let i = 1; i <= last; i++) {
      const out = i === last ? name : this.fresh('size')
      this.node(opType, [left, this.#size(parts[i]!)], [out])
      left = out
    }
  }
}

/** Factors of a product; sums stay whole. */
function splitProduct(d: string): string[] {
  return d.split('*')
}
