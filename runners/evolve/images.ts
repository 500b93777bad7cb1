/** The unlabelled images of a run: a folder searched deeply; what cannot be used is named, with the reason. */
import type { Dirent } from 'node:fs'
import { readdir, readFile, stat } from 'node:fs/promises'
import { join, relative, sep } from 'node:path'
import { isDeepStrictEqual } from 'node:util'
import sharp from 'sharp'
import { ImageOrder } from '../../actors/permutation.ts'
import type { RunImage } from '../../actors/source.ts'
import { foreignKind, headBytes } from '../../models/io/image.ts'
import { openRegularFile } from '../../models/io/regular-file.ts'

export interface Skipped {
  readonly file: string
  readonly reason: string
}

export interface ScanOptions {
  /** Larger pictures (width × height) are skipped. */
  readonly maxPixels: number
  /** Use at most this many, chosen by the seed; null = all. */
  readonly limit: number | null
  readonly seed: number
  readonly signal: AbortSignal
}

export interface Scan {
  readonly images: readonly RunImage[]
  readonly skipped: readonly Skipped[]
}

/** No image to learn from; the message says where and what to do. */
export class NoImagesError extends Error {
  override name = 'NoImagesError'
}

/** Folders up to this size are decoded whole, so that a damaged picture is named before the run begins. */
const DECODE_BYTES = 512 * 2 ** 20
const CONCURRENCY = 8

/** Every file below `dir` that sharp reads, in order of its path. Throws NoImagesError when there is none. */
export async function scanImages(dir: string, { maxPixels, limit, seed, signal }: ScanOptions): Promise<Scan> {
  const { files, skipped } = await listFiles(dir)
  const states = await Promise.all(files.map(stateOf))
  const decode = states.reduce((bytes, state) => bytes + (state?.size ?? 0), 0) <= DECODE_BYTES
  const reasons: (string | null)[] = []
  let next = 0
  const work = async () => {
    for (let i = next++; i < files.length; i = next++) {
      signal.throwIfAborted()
      reasons[i] = await problemOf(files[i]!, maxPixels, decode)
    }
  }
  await Promise.all(Array.from({ length: CONCURRENCY }, work))
  const nameOf = (file: string) => relative(dir, file).split(sep).join('/')
  const found = files.filter((_, i) => reasons[i] === null)
  files.forEach((file, i) => reasons[i] && skipped.push({ file: nameOf(file), reason: reasons[i] }))
  if (found.length === 0) {
    const why =
      files.length === 0 ? 'it has no files' : `none of its ${files.length} files is a picture that sharp reads`
    throw new NoImagesError(`there are no images in ${dir}: ${why}; give another folder with --images`)
  }
  const chosen = limit !== null && limit < found.length ? choose(found, limit, seed) : found
  const decoded = new Map(decode ? files.map((file, i) => [file, states[i]]) : [])
  const read = (file: string) => readChecked(file, maxPixels, decoded.get(file) ?? null)
  return { images: chosen.map((file) => ({ name: nameOf(file), read: () => read(file) })), skipped }
}

/** What tells whether a file is still what it was. */
interface FileState {
  readonly size: number
  readonly mtimeMs: number
  readonly ino: number
}

async function stateOf(file: string): Promise<FileState | null> {
  const found = await stat(file).catch(() => null)
  return found && { size: found.size, mtimeMs: found.mtimeMs, ino: found.ino }
}

async function listFiles(dir: string): Promise<{ files: string[]; skipped: Skipped[] }> {
  const files: string[] = []
  const skipped: Skipped[] = []
  const walk = async (folder: string): Promise<void> => {
    let entries: Dirent[]
    try {
      entries = await readdir(folder, { withFileTypes: true })
    } catch (cause) {
      const reason = reasonOf(cause)
      if (folder === dir)
        throw new NoImagesError(`the image folder ${dir} cannot be read: ${reason}; give another one with --images`, {
          cause,
        })
      skipped.push({ file: `${relative(dir, folder)}/`, reason })
      return
    }
    for (const entry of entries.toSorted((a, b) => (a.name < b.name ? -1 : 1))) {
      const path = join(folder, entry.name)
      if (entry.isDirectory()) await walk(path)
      else if (entry.isFile() || entry.isSymbolicLink()) files.push(path)
      else skipped.push({ file: relative(dir, path), reason: 'not a file' })
    }
  }
  await walk(dir)
  return { files, skipped }
}

/** Why a file cannot be used, or null. */
async function problemOf(file: string, maxPixels: number, decode: boolean): Promise<string | null> {
  try {
    const foreign = await foreignFile(file)
    if (foreign !== null) return foreign
    const { width, height } = await sharp(file, { limitInputPixels: false }).metadata()
    if (width * height > maxPixels) return `${width}×${height} pixels are over the limit of ${maxPixels}`
    // Small output: only the decoding matters, and some formats decode at a fraction of their size.
    if (decode) {
      const picture = sharp(file, { limitInputPixels: maxPixels, failOn: 'error' }).timeout({ seconds: 60 })
      await picture.resize(8, 8).raw().toBuffer()
    }
    return null
  } catch (cause) {
    return reasonOf(cause)
  }
}

/** Why a file must not even be shown to sharp, or null. */
async function foreignFile(file: string): Promise<string | null> {
  const handle = await openRegularFile(file)
  try {
    if ((await handle.stat()).size === 0) return 'the file is empty'
    const { buffer, bytesRead } = await handle.read(new Uint8Array(headBytes), 0, headBytes, 0)
    return foreignKind(buffer.subarray(0, bytesRead))
  } finally {
    await handle.close()
  }
}

/** The bytes of a picture, decoded again unless it is what it was when the scan had decoded it. */
async function readChecked(file: string, maxPixels: number, decoded: FileState | null): Promise<Uint8Array> {
  if (decoded === null || !isDeepStrictEqual(await stateOf(file), decoded)) {
    const problem = await problemOf(file, maxPixels, true)
    if (problem !== null) throw new Error(problem)
  }
  return readFile(file)
}

function choose(files: readonly string[], limit: number, seed: number): string[] {
  const order = new ImageOrder(files.length, seed)
  return Array.from({ length: limit }, (_, i) => files[order.at(i)]!).toSorted()
}

/** One line, without libvips' repetition of the path. */
function reasonOf(cause: unknown): string {
  const { code, message } = cause as NodeJS.ErrnoException
  if (code === 'EACCES' || code === 'EPERM') return 'permission denied'
  if (code === 'ENOENT') return 'does not exist'
  if (code === 'ENOTDIR') return 'is not a folder'
  return message
    .replace(/^Input file (has corrupt header|contains unsupported image format).*$/s, 'not a picture: $1')
    .split('\n')[0]!
}
