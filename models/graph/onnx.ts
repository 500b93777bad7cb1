/** Emission of a graph as an ONNX model for onnxruntime. */
import { create, toBinary } from '@bufbuild/protobuf'
import {
  GraphProtoSchema,
  ModelProtoSchema,
  OperatorSetIdProtoSchema,
  StringStringEntryProtoSchema,
  TensorProto_DataLocation as DataLocation,
  TensorProtoSchema,
  TensorShapeProto_DimensionSchema,
  TensorShapeProtoSchema,
  TypeProto_TensorSchema,
  TypeProtoSchema,
  type ValueInfoProto,
  ValueInfoProtoSchema,
} from 'onnx-buf'
import { dirname, relative, sep } from 'node:path'
import type { StoredTensor } from '../io/stored-tensor.ts'
import type { HostTensor } from '../tensor.ts'
import { type Emitters, emitters } from './emitters.ts'
import { type Graph, GraphError, type Node, type Value } from './graph.ts'
import type { OpName } from './op-attrs.ts'
import { DATA_TYPE, type SizeSource, Writer } from './onnx-writer.ts'

const OPSET = 20
const IR_VERSION = 9n
/** Initialisers above this many bytes travel beside the protobuf, uncopied; not beside files, which onnxruntime refuses. */
const INLINE_BYTES = 1024

export interface OnnxModel {
  readonly bytes: Uint8Array
  /** Initialisers kept out of the protobuf, by the location that it names. */
  readonly external: readonly { readonly path: string; readonly data: Uint8Array }[]
  /** The folder that stored tensors lie in, at any depth; null without any. */
  readonly folder: string | null
  readonly inputs: readonly string[]
  readonly outputs: readonly string[]
}

/** Where an initialiser lies beside the protobuf, in bytes. */
export interface ExternalPlace {
  readonly location: string
  readonly offset: number
  readonly length: number
}

/** Says where an initialiser lies, before its data are there; null = in the protobuf. */
export type Placement = (name: string, tensor: HostTensor) => ExternalPlace | null

export interface OnnxOptions {
  /** How ops are written; default: as the CPU has kernels for them. */
  readonly emitters?: Emitters
  readonly placement?: Placement
}

/**
 * Emits what the named outputs need; unused inputs and initialisers are left out. With a `placement`, nothing is
 * `external`: the caller brings the data to their places.
 */
export function toOnnx(
  graph: Graph,
  outputs: Readonly<Record<string, Value>>,
  { emitters: table = emitters, placement }: OnnxOptions = {},
): OnnxModel {
  const needed = reach(graph, Object.values(outputs))
  const sources = graph.sources.filter((s) => needed.has(s.value))
  const names = new Map<Value, string>(sources.map((s) => [s.value, s.name]))
  const nameOf = (v: Value): string => {
    const name = names.get(v) ?? (needed.has(v) ? `v${v.id}` : '')
    names.set(v, name)
    return name
  }
  const nodes = graph.nodes.filter((node) => node.outputs.some((v) => needed.has(v)))
  const writer = new Writer(symbols(sources, nodes, nameOf))
  for (const node of nodes) emit(table, writer, node, nameOf)
  const external: { path: string; data: Uint8Array }[] = []
  const folder = commonFolder(sources.flatMap((s) => (s.kind === 'stored' ? [s.tensor.file] : [])))
  const place = placement ?? (folder === null ? beside(external) : inside)
  const initializer = sources.flatMap((s) => {
    if (s.kind === 'stored') return [storedProto(s.name, s.value, s.tensor, folder!)]
    return s.kind === 'initializer' ? [tensorProto(s.name, s.tensor, place(s.name, s.tensor))] : []
  })
  const output = Object.entries(outputs).map(([name, v]) => {
    writer.node('Identity', [nameOf(v)], [name])
    return valueInfo(name, v)
  })
  const input = sources.flatMap((s) => (s.kind === 'input' ? [valueInfo(s.name, s.value)] : []))
  const proto = create(ModelProtoSchema, {
    irVersion: IR_VERSION,
    producerName: 'visplay',
    opsetImport: [
      create(OperatorSetIdProtoSchema, { domain: '', version: BigInt(OPSET) }),
      create(OperatorSetIdProtoSchema, { domain: 'com.microsoft', version: 1n }),
    ],
    graph: create(GraphProtoSchema, {
      name: 'visplay',
      node: writer.nodes,
      initializer: [...initializer, ...writer.constants],
      input,
      output,
    }),
  })
  return {
    bytes: toBinary(ModelProtoSchema, proto),
    external,
    folder,
    inputs: input.map((i) => i.name),
    outputs: Object.keys(outputs),
  }
}

/** All values that the outputs depend on. */
function reach(graph: Graph, outputs: readonly Value[]): Set<Value> {
  const needed = new Set(outputs)
  for (const node of [...graph.nodes].reverse())
    if (node.outputs.some((v) => needed.has(v))) for (const v of node.inputs) needed.add(v)
  return needed
}

/** Where each symbol of a size can be read at run time: in graph inputs, and where a node has found it. */
function symbols(
  sources: readonly { readonly name: string; readonly value: Value }[],
  nodes: readonly Node[],
  nameOf: (v: Value) => string,
): ReadonlyMap<string, SizeSource> {
  const found = new Map<string, SizeSource>()
  const multiples: [string, SizeSource][] = []
  for (const { name, value } of sources)
    value.dims.forEach((d, axis) => {
      if (typeof d !== 'string') return
      const [, factor, symbol] = /^(\d+)\*([^*]+)$/.exec(d) ?? []
      if (symbol !== undefined) multiples.push([symbol, { value: name, axis, factor: Number(factor) }])
      else if (!found.has(d)) found.set(d, { value: name, axis, factor: 1 })
    })
  for (const [symbol, source] of multiples) if (!found.has(symbol)) found.set(symbol, source)
  for (const { op, outputs } of nodes)
    if (op === 'nonzero') found.set(String(outputs[0]!.dim(0)), { value: nameOf(outputs[0]!), axis: 0, factor: 1 })
  return found
}

function emit<K extends OpName>(table: Emitters, writer: Writer, node: Node<K>, nameOf: (v: Value) => string): void {
  const outputs = node.outputs.map(nameOf)
  while (outputs.at(-1) === '') outputs.pop()
  // Of a node that is computed again only a later output may be needed; the first one has to have a name.
  outputs[0] ||= writer.fresh('unused')
  table[node.op](writer, node, node.inputs.map(nameOf), outputs)
}

/** Large initialisers beside the protobuf, each at a location of its own. */
function beside(external: { path: string; data: Uint8Array }[]): Placement {
  return (name, { data: { buffer, byteOffset, byteLength } }) => {
    if (buffer instanceof SharedArrayBuffer) throw new GraphError(`${name}: initialisers live in plain memory`)
    if (byteLength <= INLINE_BYTES) return null
    external.push({ path: name, data: new Uint8Array(buffer, byteOffset, byteLength) })
    return { location: name, offset: 0, length: byteLength }
  }
}

const inside: Placement = () => null

function tensorProto(name: string, tensor: HostTensor, place: ExternalPlace | null) {
  const base = { name, dataType: DATA_TYPE[tensor.dtype], dims: tensor.dims.map(BigInt) }
  if (place) return create(TensorProtoSchema, { ...base, ...externalData(place) })
  const { buffer, byteOffset, byteLength } = tensor.data
  const rawData = new Uint8Array(buffer as ArrayBuffer, byteOffset, byteLength)
  return create(TensorProtoSchema, { ...base, rawData })
}

function storedProto(name: string, { dtype }: Value, { dims, file, offset, length }: StoredTensor, folder: string) {
  const location = relative(folder, file).split(sep).join('/')
  const base = { name, dataType: DATA_TYPE[dtype], dims: dims.map(BigInt) }
  return create(TensorProtoSchema, { ...base, ...externalData({ location, offset, length }) })
}

function externalData(place: ExternalPlace) {
  return {
    externalData: Object.entries(place).map(([key, value]) =>
      create(StringStringEntryProtoSchema, { key, value: String(value) }),
    ),
    dataLocation: DataLocation.EXTERNAL,
  }
}

/** The deepest folder above all files: onnxruntime takes data from nowhere else. */
function commonFolder(files: readonly string[]): string | null {
  if (files.length === 0) return null
  let folder = dirname(files[0]!)
  const holds = (file: string) => file.startsWith(folder.endsWith(sep) ? folder : folder + sep)
  while (!files.every(holds) && dirname(folder) !== folder) folder = dirname(folder)
  return folder
}

function valueInfo(name: string, value: Value): ValueInfoProto {
  const dim = value.dims.map((d) =>
    create(TensorShapeProto_DimensionSchema, {
      value: typeof d === 'number' ? { case: 'dimValue', value: BigInt(d) } : { case: 'dimParam', value: d },
    }),
  )
  const shape = create(TensorShapeProtoSchema, { dim })
  const tensor = create(TypeProto_TensorSchema, { elemType: DATA_TYPE[value.dtype], shape })
  return create(ValueInfoProtoSchema, {
    name,
    type: create(TypeProtoSchema, { value: { case: 'tensorType', value: tensor } }),
  })
}
