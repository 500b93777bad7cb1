/** Blobs in files; those that a run had on its server before are still read there. */
import { setTimeout as sleep } from 'node:timers/promises'
import type { Lifetime } from '../lifetime.ts'
import type { BlobFiles } from './blob-files.ts'
import type { BlobPlace } from './blobs.ts'
import { UnavailableError } from './patience.ts'

const FULL: readonly string[] = ['ENOSPC', 'EDQUOT']

export interface FileBlobsOptions {
  readonly files: BlobFiles
  readonly server: BlobPlace
  readonly life: Lifetime
  /** How long it is waited for room. */
  readonly patienceMs: number
}

export class FileBlobs implements BlobPlace {
  readonly #options: FileBlobsOptions

  constructor(options: FileBlobsOptions) {
    this.#options = options
  }

  /** Waits while the disk is full; throws UnavailableError when that lasts too long. */
  async store(name: string, bytes: Uint8Array): Promise<void> {
    const { files, life, patienceMs } = this.#options
    const deadline = Date.now() + patienceMs
    for (let pause = 25; ; pause = Math.min(2 * pause, 2000)) {
      life.assertOpen()
      try {
        return await files.write(name, bytes)
      } catch (error) {
        if (!FULL.includes((error as NodeJS.ErrnoException).code ?? '')) throw error
        if (Date.now() + pause > deadline) throw full(files.folder, patienceMs, error)
      }
      await sleep(pause)
    }
  }

  async fetch(name: string): Promise<Uint8Array> {
    return (await this.#options.files.read(name)) ?? this.#options.server.fetch(name)
  }

  async delete(name: string): Promise<void> {
    if (!(await this.#options.files.delete(name))) await this.#options.server.delete(name)
  }
}

const full = (folder: string, patienceMs: number, cause: unknown): UnavailableError =>
  new UnavailableError(
    `storing a blob failed for ${patienceMs / 1000} s: the disk of ${folder} is full; free space on it, then resume the run`,
    { cause },
  )
