/**
 * Blobs as files of one folder, named by their content. What the processes of one machine give each other need not pass
 * through a server: it would copy every byte several times and write it to the same disk.
 */
import { constants } from 'node:fs'
import { access, mkdir, open, readdir, readFile, rename, rm, stat, unlink, writeFile } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import { randomHex } from '../trace.ts'

/** As the server does with its streams: a power failure costs what is younger. */
const SYNC_MS = 250
/** Bytes of deleted blobs that are kept for the next ones. */
const SPARE_BYTES = 128 * 1024 * 1024
/** What is half written for so long, nobody writes any more. */
const ABANDONED_MS = 600_000
/** Holds what tells this folder from one of the same path on another machine. */
const MARK = 'folder.id'
const NAME = /^sha256-[0-9a-f]{64}$/
const PARTIAL = '.partial'

/** The folder of the blobs of a store, whether they are there or not. */
export const blobFolder = (storeDir: string): string => join(storeDir, 'blobs')

let partials = 0

export class BlobFiles {
  readonly folder: string
  /** Written, and maybe not yet on the disk. */
  readonly #unsynced = new Set<string>()
  /**
   * Files of deleted blobs, by their size. Steps write blobs of the same sizes again and again, and what is written over
   * costs the system a quarter of what is written anew.
   */
  readonly #spare = new Map<number, string[]>()
  #spareBytes = 0
  #timer: NodeJS.Timeout | null = null
  #syncing: Promise<void> = Promise.resolve()

  constructor(folder: string) {
    // Others, who are told of it, may be in another directory.
    this.folder = resolve(folder)
  }

  /** Makes the folder if it is missing, and removes what killed processes have left half written; returns its mark. */
  async prepare(): Promise<string> {
    await mkdir(this.folder, { recursive: true, mode: 0o700 })
    const files = (await readdir(this.folder)).filter((file) => file.endsWith(PARTIAL))
    for (const file of files.map((name) => join(this.folder, name))) {
      const { mtimeMs } = await stat(file).catch(() => ({ mtimeMs: Infinity }))
      if (mtimeMs < Date.now() - ABANDONED_MS) await rm(file, { force: true })
    }
    const known = await this.mark()
    if (known !== null) return known
    const mark = randomHex()
    await writeFile(join(this.folder, MARK), mark)
    return mark
  }

  /** What `prepare` has put there; null where it is not the folder of any run, or must not be read. */
  async mark(): Promise<string | null> {
    return readFile(join(this.folder, MARK), 'utf8').catch(() => null)
  }

  /** Whether this process may write there. */
  async writable(): Promise<boolean> {
    return access(this.folder, constants.R_OK | constants.W_OK | constants.X_OK).then(
      () => true,
      () => false,
    )
  }

  /** Whole or not at all, whenever this process dies. A file of this name and size is left as it is. */
  async write(name: string, bytes: Uint8Array): Promise<void> {
    const path = this.#path(name)
    if ((await sizeOf(path)) === bytes.length) return
    const partial = (await this.#overwrite(bytes)) ?? (await this.#writeAnew(bytes))
    await rename(partial, path)
    this.#unsynced.add(name)
    this.#timer ??= setTimeout(() => this.#syncAll(), SYNC_MS)
  }

  /** Its bytes, not yet verified; null when there is no such file. */
  async read(name: string): Promise<Uint8Array | null> {
    const path = this.#path(name)
    for (;;) {
      const read = await orMissing(readWhole(path))
      if (read === null) return null
      // Deleted meanwhile, it may be in use for another one already.
      if ((await orMissing(stat(path)))?.ino === read.ino) return read.bytes
    }
  }

  /** False when there is no such file. */
  async delete(name: string): Promise<boolean> {
    this.#unsynced.delete(name)
    const path = this.#path(name)
    const size = await sizeOf(path)
    if (size === null) return false
    if (this.#spareBytes + size > SPARE_BYTES) return (await orMissing(unlink(path).then(() => true))) ?? false
    const spare = this.#partial()
    this.#spareBytes += size
    const deleted = await orMissing(rename(path, spare).then(() => true))
    if (deleted) this.#spare.set(size, [...(this.#spare.get(size) ?? []), spare])
    else this.#spareBytes -= size
    return deleted ?? false
  }

  /** The file that has the bytes now; null without a spare one. */
  async #overwrite(bytes: Uint8Array): Promise<string | null> {
    const spare = this.#spare.get(bytes.length)?.pop()
    if (spare === undefined) return null
    this.#spareBytes -= bytes.length
    // Gone, if somebody took this process for dead.
    return orMissing(writeWhole(spare, bytes, 'r+').then(() => spare))
  }

  async #writeAnew(bytes: Uint8Array): Promise<string> {
    const partial = this.#partial()
    await writeWhole(partial, bytes, 'wx')
    return partial
  }

  #partial(): string {
    return join(this.folder, `${process.pid}-${++partials}${PARTIAL}`)
  }

  /** Names of all blobs. */
  async names(): Promise<string[]> {
    return (await readdir(this.folder)).filter((file) => NAME.test(file))
  }

  /** What was written is on the disk, as far as the system tells. */
  async close(): Promise<void> {
    this.#syncAll()
    const spare = [...this.#spare.values()].flat()
    this.#spare.clear()
    await Promise.all(spare.map((path) => rm(path, { force: true })))
    await this.#syncing
  }

  #syncAll(): void {
    if (this.#timer) clearTimeout(this.#timer)
    this.#timer = null
    const names = [...this.#unsynced]
    this.#unsynced.clear()
    if (names.length === 0) return
    this.#syncing = this.#syncing.then(async () => {
      for (const name of names) await sync(this.#path(name))
      await sync(this.folder)
    })
  }

  /** A name may come from anywhere; it becomes a path only if it is one. */
  #path(name: string): string {
    if (!NAME.test(name)) throw new RangeError(`"${name}" is no name of a blob`)
    return join(this.folder, name)
  }
}

async function writeWhole(path: string, bytes: Uint8Array, flags: 'wx' | 'r+'): Promise<void> {
  const file = await open(path, flags)
  try {
    for (let at = 0; at < bytes.length;) at += (await file.write(bytes, at, bytes.length - at, at)).bytesWritten
  } catch (error) {
    await rm(path, { force: true }).catch(() => {})
    throw error
  } finally {
    await file.close()
  }
}

async function readWhole(path: string): Promise<{ bytes: Uint8Array; ino: number }> {
  const file = await open(path)
  try {
    const { size, ino } = await file.stat()
    const bytes = new Uint8Array(size)
    let at = 0
    for (let read = 1; read > 0 && at < bytes.length; at += read) {
      read = (await file.read(bytes, at, bytes.length - at)).bytesRead
    }
    return { bytes, ino }
  } finally {
    await file.close()
  }
}

/** What was deleted meanwhile needs no disk; where a folder cannot be synced, the system does it with its files. */
async function sync(path: string): Promise<void> {
  const file = await open(path).catch(() => null)
  await file?.datasync().catch(() => {})
  await file?.close()
}

const sizeOf = async (path: string): Promise<number | null> => (await orMissing(stat(path)))?.size ?? null

async function orMissing<T>(work: Promise<T>): Promise<T | null> {
  try {
    return await work
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null
    throw error
  }
}
