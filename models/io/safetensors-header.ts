/** The header of a safetensors file: names, types, shapes and byte ranges. Pure; no file access. */
import { z } from 'zod'
import { sizeOf } from '../tensor.ts'
import { CheckpointError, printable } from './checkpoint-error.ts'
import { decodeUtf8, parseJson } from './json-file.ts'

/** Bytes per element of every dtype that the format knows in whole bytes. */
export const itemSize = {
  F64: 8,
  I64: 8,
  U64: 8,
  F32: 4,
  I32: 4,
  U32: 4,
  F16: 2,
  BF16: 2,
  I16: 2,
  U16: 2,
  F8_E4M3: 1,
  F8_E5M2: 1,
  I8: 1,
  U8: 1,
  BOOL: 1,
} as const

export type StoredDType = keyof typeof itemSize

/** A tensor's place: `offset` and `length` are bytes from the start of `file`. */
export interface TensorInfo {
  readonly dtype: StoredDType
  readonly dims: readonly number[]
  readonly file: string
  readonly offset: number
  readonly length: number
}

export interface Header {
  readonly tensors: ReadonlyMap<string, TensorInfo>
  readonly metadata: Readonly<Record<string, string>>
}

/**
 * Largest header: some 100,000 tensors, far more than any model has. The reference implementation allows 100 MB, which
 * take a minute and gigabytes to parse here.
 */
const maxHeaderBytes = 8 * 2 ** 20
/** The length field before the JSON. */
export const prefixBytes = 8

const index = z.int().nonnegative()
const entrySchema = z.strictObject({
  dtype: z.string().max(16),
  shape: z.array(index).max(16),
  data_offsets: z.tuple([index, index]),
})
const headerSchema = z.looseObject({ __metadata__: z.record(z.string(), z.string()).optional() })

/** Names that no tensor may have: the format's own key, and the one that no plain JavaScript object can hold. */
export const reservedNames: ReadonlySet<string> = new Set(['__metadata__', '__proto__'])

/** The remedy for a damaged file. */
const AGAIN = 'download or copy it again'

/** Length of the JSON part, from the first 8 bytes; checked against the size of the file. */
export function headerLength(prefix: Uint8Array, fileSize: number, file: string): number {
  if (prefix.length < prefixBytes) {
    throw new CheckpointError(`truncated: ${fileSize} bytes cannot hold a safetensors header; ${AGAIN}`, { file })
  }
  const length = new DataView(prefix.buffer, prefix.byteOffset).getBigUint64(0, true)
  if (length > BigInt(maxHeaderBytes)) {
    throw new CheckpointError(`not a safetensors file (the header would be ${length} bytes long); ${AGAIN}`, { file })
  }
  if (Number(length) > fileSize - prefixBytes) {
    throw new CheckpointError(`truncated: the header needs ${length} bytes, the file has ${fileSize}; ${AGAIN}`, {
      file,
    })
  }
  return Number(length)
}

/**
 * Parse the JSON part. Byte ranges must follow each other without gap or overlap and end where the file ends,
 * as the reference implementation demands: anything else is a damaged file.
 */
export function parseHeader(json: Uint8Array, fileSize: number, file: string): Header {
  const { __metadata__: metadata = {}, ...entries } = parseJson(
    decodeUtf8(json, 'the header', file),
    headerSchema,
    file,
  )
  const start = prefixBytes + json.length
  const found: [string, TensorInfo][] = []
  for (const [name, entry] of Object.entries(entries)) found.push([name, parseEntry(name, entry, start, file)])
  checkRanges(found, start, fileSize, file)
  return { tensors: new Map(found), metadata }
}

/** The bytes before the data of a file that holds `tensors` in this order; the JSON is padded so that data is aligned. */
export function encodeHeader(
  tensors: readonly (readonly [name: string, dtype: StoredDType, dims: readonly number[]])[],
  metadata: Readonly<Record<string, string>>,
): Uint8Array {
  let end = 0
  const entries = tensors.map(([name, dtype, shape]): [string, unknown] => {
    const begin = end
    end += sizeOf(shape) * itemSize[dtype]
    return [name, { dtype, shape, data_offsets: [begin, end] }]
  })
  const json = new TextEncoder().encode(
    JSON.stringify(Object.fromEntries([['__metadata__', metadata] as [string, unknown], ...entries])),
  )
  const padded = Math.ceil(json.length / prefixBytes) * prefixBytes
  const bytes = new Uint8Array(prefixBytes + padded).fill(0x20)
  new DataView(bytes.buffer).setBigUint64(0, BigInt(padded), true)
  bytes.set(json, prefixBytes)
  return bytes
}

function parseEntry(name: string, raw: unknown, start: number, file: string): TensorInfo {
  const parsed = entrySchema.safeParse(raw)
  if (!parsed.success) {
    throw new CheckpointError(`${printable(z.prettifyError(parsed.error), 600)}; ${AGAIN}`, { file, tensor: name })
  }
  const { dtype, shape, data_offsets: range } = parsed.data
  if (!isStoredDType(dtype)) {
    throw new CheckpointError(`unknown dtype "${dtype}"; convert it to F32, BF16 or F16`, { file, tensor: name })
  }
  const length = range[1] - range[0]
  const expected = sizeOf(shape) * itemSize[dtype]
  if (length !== expected) {
    const reason = `${dtype} [${shape.join(', ')}] needs ${expected} bytes, the header gives it ${length}; ${AGAIN}`
    throw new CheckpointError(reason, { file, tensor: name })
  }
  return { dtype, dims: shape, file, offset: start + range[0], length }
}

function isStoredDType(name: string): name is StoredDType {
  return Object.hasOwn(itemSize, name)
}

function checkRanges(found: readonly [string, TensorInfo][], start: number, fileSize: number, file: string): void {
  let end = start
  const sorted = found.toSorted(([, a], [, b]) => a.offset - b.offset || a.length - b.length)
  for (const [name, { offset, length }] of sorted) {
    if (offset !== end) {
      const reason =
        offset < end ? 'its bytes overlap those of another tensor' : `a gap of ${offset - end} bytes before it`
      throw new CheckpointError(`${reason}; ${AGAIN}`, { file, tensor: name })
    }
    end += length
    if (end > fileSize) {
      throw new CheckpointError(`truncated: its data ends at byte ${end}, the file at ${fileSize}; ${AGAIN}`, {
        file,
        tensor: name,
      })
    }
  }
  if (end !== fileSize) throw new CheckpointError(`${fileSize - end} bytes after the last tensor; ${AGAIN}`, { file })
}
