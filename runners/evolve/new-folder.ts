/** The folder of a run that has yet to start. */
import { readdir, rm, rmdir, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { withoutSecrets } from '../../configs/secrets.ts'
import { makeFolder } from '../make-folder.ts'

/** What a run writes before its first step. */
const WRITTEN = ['config.yaml', 'visplay.log', 'world', 'nats']

export class NewFolder {
  readonly #dir: string
  /** The outermost folder that was made for it; null = it was there. */
  readonly #made: string | null
  /** What is ours to remove, had it not been there before. */
  readonly #ours: readonly string[]

  private constructor(dir: string, made: string | null, before: readonly string[]) {
    this.#dir = dir
    this.#made = made
    this.#ours = WRITTEN.filter((name) => !before.includes(name))
  }

  /** Makes it, with the configuration in it: from now on it can be resumed. Throws FolderError. */
  static async make(dir: string, config: string): Promise<NewFolder> {
    const made = await makeFolder(dir)
    const folder = new NewFolder(dir, made, await readdir(dir))
    try {
      await writeFile(join(dir, 'config.yaml'), config, { mode: withoutSecrets(config) === config ? 0o644 : 0o600 })
    } catch (error) {
      await folder.remove()
      throw error
    }
    return folder
  }

  /** Removes what the run has written, and the folders that were made for it where nothing else is in them. */
  async remove(): Promise<void> {
    for (const name of this.#ours) await rm(join(this.#dir, name), { recursive: true, force: true })
    if (this.#made === null) return
    try {
      for (let dir = this.#dir; dir.length >= this.#made.length; dir = dirname(dir)) await rmdir(dir)
    } catch {
      // Another program uses it.
    }
  }
}
