/** The base checkpoint of a run on the bus: whoever joins gets the very files that the run began with. */
import { createHash } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { mkdir, open, readdir, rename, rm, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { z } from 'zod'
import type { Bus } from '../../bus/bus.ts'
import { blobSchema } from '../../bus/messages.ts'

/** Files travel in pieces of this size: none is held in memory whole, and a broken transfer goes on where it was. */
const PIECE_BYTES = 16 * 1024 * 1024
/** Below this size a checkpoint is put on the bus of every run; above it only where others can join. */
export const SMALL_CHECKPOINT = 64 * 1024 * 1024
const KEY = 'base'

const manifestSchema = z.object({
  /** Whether the pieces are on the bus. */
  shared: z.boolean(),
  files: z.array(
    z.object({
      // A name from the bus becomes a path: one plain name, nothing else.
      name: z.string().regex(/^[A-Za-z0-9][A-Za-z0-9._-]*$/),
      bytes: z.number().int().min(0),
      pieces: z.array(blobSchema),
    }),
  ),
})
export type Manifest = z.infer<typeof manifestSchema>

/** A joiner cannot get the checkpoint of the run; the message says what to do. */
export class BaseCheckpointError extends Error {
  override name = 'BaseCheckpointError'
}

/** Publishes which files the checkpoint folder has, and the files themselves when `upload`, or when they are small. */
export async function shareCheckpoint(bus: Bus, dir: string, upload: boolean): Promise<Manifest> {
  const entries = await readdir(dir, { withFileTypes: true })
  // In the cache of the hub, files are links.
  const names = entries.filter((e) => (e.isFile() || e.isSymbolicLink()) && isCheckpointFile(e.name))
  const sizes = await Promise.all(names.map(({ name }) => stat(join(dir, name))))
  const shared = upload || sizes.reduce((sum, { size }) => sum + size, 0) <= SMALL_CHECKPOINT
  const files: Manifest['files'] = []
  for (const [i, { name }] of names.entries()) {
    const pieces: string[] = []
    for await (const piece of piecesOf(join(dir, name))) pieces.push(shared ? await bus.putBlob(piece) : nameOf(piece))
    files.push({ name, bytes: sizes[i]!.size, pieces })
  }
  const manifest = { shared, files }
  await bus.putValue(KEY, manifest)
  return manifest
}

/** Models of other frameworks and notes are left out. */
const isCheckpointFile = (name: string): boolean => /\.(json|safetensors|model|txt|jinja)$/.test(name)

const nameOf = (bytes: Uint8Array): string => `sha256-${createHash('sha256').update(bytes).digest('hex')}`

async function* piecesOf(file: string): AsyncGenerator<Uint8Array> {
  let parts: Buffer[] = []
  let length = 0
  for await (const chunk of createReadStream(file, { highWaterMark: 1024 * 1024 })) {
    parts.push(chunk as Buffer)
    length += (chunk as Buffer).length
    if (length < PIECE_BYTES) continue
    yield Buffer.concat(parts)
    parts = []
    length = 0
  }
  if (length > 0) yield Buffer.concat(parts)
}

export interface FetchOptions {
  /** Folder under which checkpoints are kept, by content. */
  readonly cache: string
  /** A folder of the user's that may be the same checkpoint. */
  readonly local: string | null
  readonly onProgress: (done: number, total: number) => void
  readonly signal: AbortSignal
}

/** A folder with the files of the run's base checkpoint: the user's when it is the same, else fetched piece by piece. */
export async function fetchCheckpoint(bus: Bus, { cache, local, onProgress, signal }: FetchOptions): Promise<string> {
  const value = await bus.getValue(KEY)
  if (value === undefined)
    throw new BaseCheckpointError(
      `run ${bus.run} does not say which checkpoint it began with; is it starting? Try again in a moment`,
    )
  const manifest = manifestSchema.parse(value)
  if (local !== null) {
    const wrong = await firstDifference(local, manifest)
    if (wrong === null) return local
    throw new BaseCheckpointError(
      `${join(local, wrong)} is not the file that the run began with; leave --model out, or copy the checkpoint of the run`,
    )
  }
  const dir = join(cache, nameOf(Buffer.from(JSON.stringify(manifest.files))))
  if ((await firstDifference(dir, manifest)) === null) return dir
  if (!manifest.shared) {
    throw new BaseCheckpointError(
      'the checkpoint of the run is not on the bus: copy its folder here and name it with --model, or start the run with --listen',
    )
  }
  await mkdir(dir, { recursive: true })
  const total = manifest.files.reduce((sum, { bytes }) => sum + bytes, 0)
  let done = 0
  for (const file of manifest.files) {
    await fetchFile(bus, join(dir, file.name), file, signal, (bytes) => onProgress((done += bytes), total))
  }
  return dir
}

/** Writes the pieces that are not there yet; the file gets its name when it is whole. */
async function fetchFile(
  bus: Bus,
  path: string,
  { bytes, pieces }: Manifest['files'][number],
  signal: AbortSignal,
  onPiece: (bytes: number) => void,
): Promise<void> {
  if (await isSame(path, pieces)) return onPiece(bytes)
  const partial = `${path}.partial`
  const have = (await stat(partial).catch(() => null))?.size ?? 0
  let at = have - (have % PIECE_BYTES)
  const file = await open(partial, have === 0 ? 'w' : 'r+')
  try {
    onPiece(at)
    for (const piece of pieces.slice(at / PIECE_BYTES)) {
      signal.throwIfAborted()
      const part = await bus.getBlob(piece)
      await file.write(part, 0, part.length, at)
      at += part.length
      onPiece(part.length)
    }
    await file.truncate(at)
  } finally {
    await file.close()
  }
  if (!(await isSame(partial, pieces))) {
    await rm(partial)
    throw new BaseCheckpointError(`${path} arrived damaged; join again`)
  }
  await rename(partial, path)
}

async function firstDifference(dir: string, { files }: Manifest): Promise<string | null> {
  for (const { name, pieces } of files) if (!(await isSame(join(dir, name), pieces))) return name
  return null
}

async function isSame(file: string, pieces: readonly string[]): Promise<boolean> {
  let i = 0
  try {
    for await (const piece of piecesOf(file)) if (nameOf(piece) !== pieces[i++]) return false
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return false
    throw error
  }
  return i === pieces.length
}
