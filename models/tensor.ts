/** Host tensors: what crosses the border between TypeScript and an onnxruntime session. */

export type DType = 'float32' | 'int32' | 'int64' | 'int8' | 'uint8' | 'bool'

export interface DataOf {
  float32: Float32Array
  int32: Int32Array
  int64: BigInt64Array
  int8: Int8Array
  uint8: Uint8Array
  bool: Uint8Array
}

/** A dense row-major array. `data.length` equals the product of `dims`; `[]` is a scalar. */
export interface HostTensor<D extends DType = DType> {
  readonly dtype: D
  readonly dims: readonly number[]
  readonly data: DataOf[D]
}

export type TensorMap = Readonly<Record<string, HostTensor>>

/** A tensor in the memory of a device; only a session sees inside. Whoever holds it disposes of it. */
export interface DeviceTensor {
  readonly dtype: DType
  readonly dims: readonly number[]
  dispose(): void
}

/** What a session takes and, where it was asked to leave outputs on its device, gives. */
export type Tensor = HostTensor | DeviceTensor
export type Tensors = Readonly<Record<string, Tensor>>

export const isHost = (tensor: Tensor): tensor is HostTensor => 'data' in tensor
/** Named float32 tensors: weights, gradients, adapters, optimizer moments. */
export type Weights = Readonly<Record<string, HostTensor<'float32'>>>

/** Number of elements of a shape. */
export function sizeOf(dims: readonly number[]): number {
  return dims.reduce((a, b) => a * b, 1)
}

/** float32 tensor of the given shape; throws when the length does not fit. */
export function f32(data: Float32Array | readonly number[], dims: readonly number[]): HostTensor<'float32'> {
  const array = data instanceof Float32Array ? data : Float32Array.from(data)
  checkLength(array.length, dims)
  return { dtype: 'float32', dims, data: array }
}

/** A float32 tensor of which only the shape is known yet: to read its data is an error. */
export function unread(name: string, dims: readonly number[]): HostTensor<'float32'> {
  return {
    dtype: 'float32',
    dims,
    get data(): Float32Array {
      throw new Error(`the values of "${name}" were not read`)
    },
  }
}

/** int32 tensor of the given shape; throws when the length does not fit. */
export function i32(data: Int32Array | readonly number[], dims: readonly number[]): HostTensor<'int32'> {
  const array = data instanceof Int32Array ? data : Int32Array.from(data)
  checkLength(array.length, dims)
  return { dtype: 'int32', dims, data: array }
}

function checkLength(length: number, dims: readonly number[]): void {
  if (length !== sizeOf(dims)) throw new RangeError(`${length} values do not fill the shape [${dims.join(', ')}]`)
}
