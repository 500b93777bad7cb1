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
import { DATA_TYPE, Writer } from './onnx-writer.ts'

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

/** Emits what the named outputs need; unused inputs and initialisers are left out. */
export function toOnnx(graph: Graph, outputs: Readonly<Record<string, Value>>, table: Emitters = emitters): OnnxModel {
  const needed = reach(graph, Object.values(outputs))
  const sources = graph.sources.filter((s) => needed.has(s.value))
  const names = new Map<Value, string>(sources.map((s) => [s.value, s.name]))
  const writer = new Writer(symbols(graph, sources))
  const nameOf = (v: Value): string => {
    const name = names.get(v) ?? (needed.has(v) ? `v${v.id}` : '')
    names.set(v, name)
    return name
  }
  for (const node of graph.nodes) if (node.outputs.some((v) => needed.has(v))) emit(table, writer, node, nameOf)
  const external: { path: string; data: Uint8Array }[] = []
  const folder = commonFolder(sources.flatMap((s) => (s.kind === 'stored' ? [s.tensor.file] : [])))
  const initializer = sources.flatMap((s) => {
    if (s.kind === 'stored') return [storedProto(s.name, s.value, s.tensor, folder!)]
    return s.kind === 'initializer' ? [tensorProto(s.name, s.tensor, folder === null ? external : null)] : []
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

/** Where each symbol of a size can be read at run time. */
function symbols(graph: Graph, sources: readonly { kind: string; name: string; value: Value }[]) {
  const found = new Map<string, { input: string; axis: number }>()
  for (const s of sources)
    s.value.dims.forEach((d, axis) => {
      if (typeof d === 'string' && !found.has(d)) found.set(d, { input: s.name, axis })
    })
  return found
}

function emit<K extends OpName>(table: Emitters, writer: Writer, node: Node<K>, nameOf: (v: Value) => string): void {
  const outputs = node.outputs.map(nameOf)
  while (outputs.at(-1) === '') outputs.pop()
  // Of a node that is computed again only a later output may be needed; the first one has to have a name.
  outputs[0] ||= writer.fresh('unused')
  table[node.op](writer, node, node.inputs.map(nameOf), outputs)
}

function tensorProto(name: string, tensor: HostTensor, external: { path: string; data: Uint8Array }[] | null) {
  const { buffer, byteOffset, byteLength } = tensor.data
  if (buffer instanceof SharedArrayBuffer) throw new GraphError(`${name}: initialisers live in plain memory`)
  const data = new Uint8Array(buffer, byteOffset, byteLength)
  const base = { name, dataType: DATA_TYPE[tensor.dtype], dims: tensor.dims.map(BigInt) }
  if (byteLength <= INLINE_BYTES || external === null) return create(TensorProtoSchema, { ...base, rawData: data })
  external.push({ path: name, data })
  return create(TensorProtoSchema, { ...base, ...externalData(name, 0, byteLength) })
}

function storedProto(name: string, { dtype }: Value, { dims, file, offset, length }: StoredTensor, folder: string) {
  const location = relative(folder, file).split(sep).join('/')
  const base = { name, dataType: DATA_TYPE[dtype], dims: dims.map(BigInt) }
  return create(TensorProtoSchema, { ...base, ...externalData(location, offset, length) })
}

function externalData(location: string, offset: number, length: number) {
  const entries = { location, offset: String(offset), length: String(length) }
  return {
    externalData: Object.entries(entries).map(([key, value]) => create(StringStringEntryProtoSchema, { key, value })),
    dataLocation: DataLocation.EXTERNAL,
  }
}

/** The deepest folder above all files: onnxruntime takes data from nowhere else. */
function commonFolder(files: readonly string[]): string | null {
  if (files.length === 0) return null
  let folder = dirname(files[0]!)
  const inside = (file: string) => file.startsWith(folder.endsWith(sep) ? folder : folder + sep)
  while (!files.every(inside) && dirname(folder) !== folder) folder = dirname(folder)
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
