/** Safetensors checkpoints: lazy reading (one file or shards with an index), whole files, atomic writing. */
import { type FileHandle, realpath } from 'node:fs/promises'
import { basename, join } from 'node:path'
import { z } from 'zod'
import { sizeOf, type DType, type HostTensor, type TensorMap } from '../tensor.ts'
import { writeFileAtomically } from './atomic-file.ts'
import { CheckpointError, printable } from './checkpoint-error.ts'
import { bf16ToF32, f16ToF32 } from './float16.ts'
import { isMissing, readJsonIfPresent, reasonOf } from './json-file.ts'
import { fill, readBytesAt } from './read-range.ts'
import { openRegularFile } from './regular-file.ts'
import { assertFiniteBits, notFinite } from './finite.ts'
import type { StoredTensor } from './stored-tensor.ts'
import {
  encodeHeader,
  headerLength,
  itemSize,
  parseHeader,
  prefixBytes,
  reservedNames,
  type Header,
  type StoredDType,
  type TensorInfo,
} from './safetensors-header.ts'

/** The weights of a checkpoint folder. Only headers are in memory; tensors are read when asked for. */
export interface Checkpoint {
  readonly dir: string
  names(): readonly string[]
  has(name: string): boolean
  /** Throws a `CheckpointError` when there is no such tensor. */
  info(name: string): TensorInfo
  /** Stored F32, BF16 or F16, widened exactly. */
  readF32(name: string): Promise<HostTensor<'float32'>>
  /**
   * The place of a tensor in its file, for onnxruntime to map; null where that is impossible because its numbers do not lie
   * at multiples of their size. Throws a `CheckpointError` when it is not stored as F32, BF16 or F16, or, as `assertFinite`,
   * when it holds a NaN or an infinity: all of it is read once, in pieces, and nothing is kept.
   */
  stored(name: string): Promise<StoredTensor | null>
  close(): Promise<void>
}

const singleFile = 'model.safetensors'
const indexFile = 'model.safetensors.index.json'
const indexSchema = z.object({ weight_map: z.record(z.string(), z.string()) })
/** What is checked at a time. */
const PIECE_BYTES = 2 ** 20

/** Open `model.safetensors`, or the shards that `model.safetensors.index.json` names, in a folder. */
export async function openCheckpoint(dir: string): Promise<Checkpoint> {
  const files = new Map<string, OpenFile>()
  try {
    const infos = await openAll(dir, files)
    return new FolderCheckpoint(dir, infos, files)
  } catch (error) {
    await closeAll(files)
    throw error
  }
}

/** All tensors of one file; BF16 and F16 are widened to float32. */
export async function readSafetensors(file: string): Promise<TensorMap> {
  const { tensors } = await readSafetensorsWithMetadata(file)
  return tensors
}

/** As `readSafetensors`, with the header's free-form metadata. */
export async function readSafetensorsWithMetadata(file: string): Promise<{ tensors: TensorMap; metadata: Metadata }> {
  const { handle, header } = await openFile(file)
  try {
    const found: [string, HostTensor][] = []
    for (const [name, info] of header.tensors) found.push([name, decode(name, info, await readRange(handle, info))])
    return { tensors: Object.fromEntries(found), metadata: header.metadata }
  } finally {
    await handle.close()
  }
}

export type Metadata = Readonly<Record<string, string>>

/**
 * Write tensors to one file, atomically. Sorted by element size, then name, as the reference implementation does,
 * so that equal content gives equal bytes. `format: pt` is what transformers expects of weights.
 */
export async function writeSafetensors(
  file: string,
  tensors: TensorMap,
  metadata: Metadata = { format: 'pt' },
): Promise<void> {
  const sorted = Object.entries(tensors).toSorted(
    ([a, s], [b, t]) => itemSize[storedAs[t.dtype]] - itemSize[storedAs[s.dtype]] || (a < b ? -1 : 1),
  )
  for (const [name, { dims, data }] of sorted) {
    if (reservedNames.has(name)) throw new CheckpointError('the name is reserved', { file, tensor: name })
    if (data.length !== sizeOf(dims)) {
      throw new CheckpointError(`${data.length} values do not fill [${dims.join(', ')}]`, { file, tensor: name })
    }
  }
  const header = encodeHeader(
    sorted.map(([name, { dtype, dims }]) => [name, storedAs[dtype], dims]),
    metadata,
  )
  const chunks = [
    header,
    ...sorted.map(([, { data }]) => new Uint8Array(data.buffer, data.byteOffset, data.byteLength)),
  ]
  try {
    await writeFileAtomically(file, chunks)
  } catch (cause) {
    throw new CheckpointError(`cannot be written (${reasonOf(cause)})`, { file, cause })
  }
}

/** Throws a `CheckpointError` that names the tensor when it holds a NaN or an infinity. */
export function assertFinite(name: string, tensor: HostTensor<'float32'>, file = 'weights'): void {
  const { data } = tensor
  for (let i = 0; i < data.length; i++) if (!Number.isFinite(data[i])) throw notFinite(name, i, data[i]!, file)
}

const storedAs = {
  float32: 'F32',
  int32: 'I32',
  int64: 'I64',
  int8: 'I8',
  uint8: 'U8',
  bool: 'BOOL',
} as const satisfies Record<DType, StoredDType>

interface OpenFile {
  /** Absolute, without symbolic links: the hub's cache is full of them, and onnxruntime follows none out of a folder. */
  readonly path: string
  readonly handle: FileHandle
  readonly header: Header
}

class FolderCheckpoint implements Checkpoint {
  readonly dir: string
  readonly #infos: ReadonlyMap<string, TensorInfo>
  readonly #files: ReadonlyMap<string, OpenFile>
  #pieces: Uint8Array | null = null

  constructor(dir: string, infos: ReadonlyMap<string, TensorInfo>, files: ReadonlyMap<string, OpenFile>) {
    this.dir = dir
    this.#infos = infos
    this.#files = files
  }

  names(): readonly string[] {
    return [...this.#infos.keys()]
  }

  has(name: string): boolean {
    return this.#infos.has(name)
  }

  info(name: string): TensorInfo {
    const info = this.#infos.get(name)
    if (!info)
      throw new CheckpointError('no such tensor in the checkpoint; use a whole one', { file: this.dir, tensor: name })
    return info
  }

  async readF32(name: string): Promise<HostTensor<'float32'>> {
    const info = this.info(name)
    const { handle } = this.#files.get(info.file)!
    const tensor = decode(name, info, await readRange(handle, info))
    if (tensor.dtype !== 'float32') throw notFloating(name, info)
    return tensor as HostTensor<'float32'>
  }

  async stored(name: string): Promise<StoredTensor | null> {
    const info = this.info(name)
    const { dtype, dims, offset, length } = info
    if (dtype !== 'F32' && dtype !== 'BF16' && dtype !== 'F16') throw notFloating(name, info)
    const { handle, path } = this.#files.get(info.file)!
    if (offset % itemSize[dtype] !== 0) return null
    const pieces = (this.#pieces ??= new Uint8Array(PIECE_BYTES))
    for (let done = 0; done < length; done += PIECE_BYTES) {
      const piece = pieces.subarray(0, Math.min(PIECE_BYTES, length - done))
      await fill(handle, info.file, piece, offset + done)
      assertFiniteBits(name, dtype, piece, done / itemSize[dtype], info.file)
    }
    return { dtype, dims, file: path, offset, length }
  }

  close(): Promise<void> {
    return closeAll(this.#files)
  }
}

async function openAll(dir: string, files: Map<string, OpenFile>): Promise<Map<string, TensorInfo>> {
  const indexPath = join(dir, indexFile)
  const index = await readJsonIfPresent(indexPath, indexSchema)
  if (!index) {
    const path = join(dir, singleFile)
    const opened = await openFile(path)
    files.set(path, opened)
    return new Map(opened.header.tensors)
  }
  const infos = new Map<string, TensorInfo>()
  for (const [name, shard] of Object.entries(index.weight_map)) {
    const path = join(dir, shardName(shard, indexPath, name))
    if (!files.has(path)) files.set(path, await openFile(path))
    const info = files.get(path)!.header.tensors.get(name)
    if (!info) {
      const reason = `not in ${shard}, where ${indexFile} places it; are all weights downloaded?`
      throw new CheckpointError(reason, { file: path, tensor: name })
    }
    infos.set(name, info)
  }
  return infos
}

/** A shard is a plain file name in the same folder: an index must not reach anywhere else. */
function shardName(shard: string, file: string, tensor: string): string {
  if (shard !== basename(shard) || !/^[^/\\:\0]+\.safetensors$/.test(shard)) {
    const reason = `"${printable(shard, 120)}" is not a .safetensors file name in this folder; use the original index`
    throw new CheckpointError(reason, { file, tensor })
  }
  return shard
}

async function openFile(file: string): Promise<OpenFile> {
  let handle: FileHandle
  try {
    handle = await openRegularFile(file)
  } catch (cause) {
    const reason = isMissing(cause)
      ? 'no such file; are all weights downloaded?'
      : `cannot be opened (${reasonOf(cause)}); give another checkpoint`
    throw new CheckpointError(reason, { file, cause })
  }
  try {
    const { size } = await handle.stat()
    const prefix = await readBytesAt(handle, file, 0, Math.min(size, prefixBytes))
    const json = await readBytesAt(handle, file, prefixBytes, headerLength(prefix, size, file))
    return { path: await realpath(file), handle, header: parseHeader(json, size, file) }
  } catch (error) {
    await handle.close()
    throw error
  }
}

async function closeAll(files: ReadonlyMap<string, OpenFile>): Promise<void> {
  await Promise.all([...files.values()].map(({ handle }) => handle.close()))
}

function readRange(handle: FileHandle, info: TensorInfo): Promise<Uint8Array> {
  return readBytesAt(handle, info.file, info.offset, info.length)
}

const notFloating = (tensor: string, { dtype, file }: TensorInfo): CheckpointError =>
  new CheckpointError(`stored as ${dtype}, needed as floating point`, { file, tensor })

function decode(name: string, info: TensorInfo, bytes: Uint8Array): HostTensor {
  const { dims, dtype, file } = info
  switch (dtype) {
    case 'F32':
      return { dtype: 'float32', dims, data: new Float32Array(bytes.buffer) }
    case 'BF16':
      return { dtype: 'float32', dims, data: bf16ToF32(new Uint16Array(bytes.buffer)) }
    case 'F16':
      return { dtype: 'float32', dims, data: f16ToF32(new Uint16Array(bytes.buffer)) }
    case 'I64':
      return { dtype: 'int64', dims, data: new BigInt64Array(bytes.buffer) }
    case 'I32':
      return { dtype: 'int32', dims, data: new Int32Array(bytes.buffer) }
    case 'I8':
      return { dtype: 'int8', dims, data: new Int8Array(bytes.buffer) }
    case 'U8':
      return { dtype: 'uint8', dims, data: bytes }
    case 'BOOL':
      return { dtype: 'bool', dims, data: bytes }
    case 'F64':
    case 'U64':
    case 'U32':
    case 'I16':
    case 'U16':
    case 'F8_E4M3':
    case 'F8_E5M2':
      throw new CheckpointError(`dtype ${dtype} is not supported; convert it to F32, BF16 or F16`, {
        file,
        tensor: name,
      })
  }
}
