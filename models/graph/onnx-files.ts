/** A graph as ONNX files whose weights lie beside it and are written one after the other: memory holds one tensor. */
import { open, type FileHandle } from 'node:fs/promises'
import { join } from 'node:path'
import { type HostTensor, sizeOf } from '../tensor.ts'
import type { Graph, Value } from './graph.ts'
import { type ExternalPlace, type Placement, toOnnx } from './onnx.ts'
import { itemBytes } from './onnx-writer.ts'

/** Where the values of initialisers come from; those that it does not have are constants of the graph. */
export interface WeightSource {
  has(name: string): boolean
  read(name: string): Promise<HostTensor>
}

export interface OnnxFiles {
  /** Names of the files with weights: `<name>.onnx_data`, `<name>.onnx_data_1`, … */
  readonly data: readonly string[]
  readonly bytes: number
}

/** Runtimes map files into memory by pages. */
const PAGE = 4096
/** No file is larger, unless one tensor is: browsers refuse more. */
const FILE_BYTES = 2 ** 31 - PAGE

/** Writes `<name>.onnx` and its data into a folder. `onBytes` is told of what was written; it may throw to stop. */
export async function writeOnnx(
  dir: string,
  name: string,
  { graph, outputs }: { readonly graph: Graph; readonly outputs: Readonly<Record<string, Value>> },
  source: WeightSource,
  onBytes: (bytes: number) => void,
): Promise<OnnxFiles> {
  const layout = new Layout(`${name}.onnx_data`)
  const constants = new Map<string, HostTensor>()
  const placement: Placement = (tensor, value) => {
    const length = itemBytes[value.dtype] * sizeOf(value.dims)
    if (source.has(tensor)) return layout.place(tensor, length)
    if (length <= PAGE) return null
    constants.set(tensor, value)
    return layout.place(tensor, length)
  }
  const { bytes } = toOnnx(graph, outputs, { placement })
  const files = new DataFiles(dir)
  try {
    for (const [tensor, place] of layout.places) {
      const value = constants.get(tensor) ?? (await source.read(tensor))
      await files.write(place, value)
      onBytes(place.length)
    }
  } finally {
    await files.close()
  }
  const model = await open(join(dir, `${name}.onnx`), 'wx')
  try {
    await model.writeFile(bytes)
    await model.sync()
  } finally {
    await model.close()
  }
  onBytes(bytes.length)
  return { data: layout.files(), bytes: bytes.length + layout.bytes }
}

/** Bytes that `writeOnnx` will report. */
export function weightBytes({ graph }: { readonly graph: Graph }): number {
  return graph.sources.reduce(
    (n, s) => (s.kind === 'initializer' ? n + itemBytes[s.tensor.dtype] * sizeOf(s.tensor.dims) : n),
    0,
  )
}

/** One tensor behind the other, each on a page of its own. */
class Layout {
  readonly places = new Map<string, ExternalPlace>()
  #file = 0
  #end = 0

  constructor(private readonly first: string) {}

  place(tensor: string, length: number): ExternalPlace {
    let offset = Math.ceil(this.#end / PAGE) * PAGE
    if (offset > 0 && offset + length > FILE_BYTES) {
      this.#file++
      offset = 0
    }
    const place = { location: this.#name(this.#file), offset, length }
    this.places.set(tensor, place)
    this.#end = offset + length
    return place
  }

  files(): string[] {
    return [...new Set([...this.places.values()].map((p) => p.location))]
  }

  get bytes(): number {
    return [...this.places.values()].reduce((n, p) => n + p.length, 0)
  }

  #name(file: number): string {
    return file === 0 ? this.first : `${this.first}_${file}`
  }
}

/** Files that are written at given places, one open at a time. */
class DataFiles {
  #open: { readonly name: string; readonly handle: FileHandle } | null = null

  constructor(private readonly dir: string) {}

  async write({ location, offset, length }: ExternalPlace, { data }: HostTensor): Promise<void> {
    if (data.byteLength !== length) throw new RangeError(`${data.byteLength} bytes for a place of ${length}`)
    if (this.#open?.name !== location) {
      await this.close()
      this.#open = { name: location, handle: await open(join(this.dir, location), 'wx') }
    }
    const { handle } = this.#open
    const bytes = new Uint8Array(data.buffer, data.byteOffset, length)
    for (let done = 0; done < length;) {
      const part = Math.min(length - done, 2 ** 30)
      done += (await handle.write(bytes, done, part, offset + done)).bytesWritten
    }
  }

  async close(): Promise<void> {
    const last = this.#open
    this.#open = null
    if (!last) return
    try {
      await last.handle.sync()
    } finally {
      await last.handle.close()
    }
  }
}
