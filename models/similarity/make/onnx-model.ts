/** The static embedding as an ONNX model: look up, weight by the mask, mean, unit length. */
import { create, toBinary } from '@bufbuild/protobuf'
import {
  GraphProtoSchema,
  ModelProtoSchema,
  OperatorSetIdProtoSchema,
  TensorProto_DataType as OnnxType,
  TensorProtoSchema,
  TensorShapeProto_DimensionSchema,
  TensorShapeProtoSchema,
  TypeProto_TensorSchema,
  TypeProtoSchema,
  ValueInfoProtoSchema,
} from 'onnx-buf'
import type { ValueInfoProto } from 'onnx-buf'
import { Writer } from '../../graph/onnx-writer.ts'

const IR_VERSION = 8n
const OPSET = 17n

/**
 * Bytes of a model with BERT's inputs `input_ids`, `attention_mask`, `token_type_ids` (int64 [batch, tokens], the last
 * one unused) and the output `last_hidden_state` float32 [batch, 1, D]. `rows` [V, D] are stored as int8 with one scale
 * a row.
 */
export function embeddingModel(rows: readonly Float32Array[]): Uint8Array {
  const width = rows[0]!.length
  const scales = Float32Array.from(rows, (row) => row.reduce((max, x) => Math.max(max, Math.abs(x)), 0) / 127 || 1)
  const table = Int8Array.from(rows.flatMap((row, i) => Array.from(row, (x) => Math.round(x / scales[i]!))))
  const writer = new Writer(new Map())
  writer.constants.push(
    tensor('table', OnnxType.INT8, [rows.length, width], table),
    tensor('scales', OnnxType.FLOAT, [rows.length, 1], scales),
  )
  writer.node('Gather', ['table', 'input_ids'], ['codes'])
  writer.node('Cast', ['codes'], ['values'], { to: OnnxType.FLOAT })
  writer.node('Gather', ['scales', 'input_ids'], ['scale'])
  writer.node('Cast', ['attention_mask'], ['flat_mask'], { to: OnnxType.FLOAT })
  writer.node('Unsqueeze', ['flat_mask', writer.int64s([-1])], ['mask'])
  writer.node('Mul', ['values', 'scale'], ['words'])
  writer.node('Mul', ['words', 'mask'], ['masked'])
  writer.node('ReduceSum', ['masked', writer.int64s([1])], ['sum'], { keepdims: 1 })
  writer.node('ReduceSum', ['mask', writer.int64s([1])], ['length'], { keepdims: 1 })
  writer.node('Max', ['length', writer.float32s([1])], ['divisor'])
  writer.node('Div', ['sum', 'divisor'], ['mean'])
  writer.node('ReduceL2', ['mean'], ['norm'], { axes: [-1], keepdims: 1 })
  writer.node('Max', ['norm', writer.float32s([1e-9])], ['safe_norm'])
  writer.node('Div', ['mean', 'safe_norm'], ['last_hidden_state'])
  const ids = ['input_ids', 'attention_mask', 'token_type_ids']
  const graph = create(GraphProtoSchema, {
    name: 'static_embedding',
    node: writer.nodes,
    initializer: writer.constants,
    input: ids.map((name) => valueInfo(name, OnnxType.INT64, ['batch', 'tokens'])),
    output: [valueInfo('last_hidden_state', OnnxType.FLOAT, ['batch', 1, width])],
  })
  const opsetImport = [create(OperatorSetIdProtoSchema, { domain: '', version: OPSET })]
  const model = create(ModelProtoSchema, { irVersion: IR_VERSION, producerName: 'visplay', opsetImport, graph })
  return toBinary(ModelProtoSchema, model)
}

function tensor(name: string, dataType: OnnxType, dims: readonly number[], data: Int8Array | Float32Array) {
  const rawData = new Uint8Array(data.buffer as ArrayBuffer, data.byteOffset, data.byteLength)
  return create(TensorProtoSchema, { name, dataType, dims: dims.map(BigInt), rawData })
}

function valueInfo(name: string, elemType: OnnxType, dims: readonly (number | string)[]): ValueInfoProto {
  const dim = dims.map((size) =>
    create(TensorShapeProto_DimensionSchema, {
      value: typeof size === 'number' ? { case: 'dimValue', value: BigInt(size) } : { case: 'dimParam', value: size },
    }),
  )
  const shape = create(TensorShapeProtoSchema, { dim })
  const tensorType = create(TypeProto_TensorSchema, { elemType, shape })
  return create(ValueInfoProtoSchema, {
    name,
    type: create(TypeProtoSchema, { value: { case: 'tensorType', value: tensorType } }),
  })
}
