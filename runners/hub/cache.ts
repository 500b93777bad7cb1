/**
 * The cache that the libraries of Hugging Face share (`HF_HUB_CACHE`, else `$HF_HOME/hub`, else
 * `~/.cache/huggingface/hub`): `blobs/` by hash, `snapshots/<commit>/` of links to them, `refs/<revision>` with the commit
 * of a branch. What Python has downloaded is found here, and the other way round.
 */
import { existsSync } from 'node:fs'
import { copyFile, mkdir, readFile, rm, symlink, writeFile } from 'node:fs/promises'
import { dirname, join, relative } from 'node:path'
import { getHFHubCachePath, getRepoFolderName } from '@huggingface/hub'
import { z } from 'zod'
import { readJsonIfPresent } from '../../models/io/json-file.ts'
import { isCommit } from './name.ts'

const indexSchema = z.looseObject({ weight_map: z.record(z.string(), z.string()) })

/** The part of the cache that belongs to one model. */
export class HubCache {
  readonly folder: string

  constructor(repo: string) {
    this.folder = join(getHFHubCachePath(), getRepoFolderName({ type: 'model', name: repo }))
  }

  snapshot(commit: string): string {
    return join(this.folder, 'snapshots', commit)
  }

  /** Where the bytes of a hash are, or will be. */
  blob(hash: string): string {
    return join(this.folder, 'blobs', hash)
  }

  /** What a branch or a tag was when it was asked for last; null when it never was. */
  async commitOf(revision: string): Promise<string | null> {
    if (isCommit(revision)) return revision
    try {
      return (await readFile(join(this.folder, 'refs', revision), 'utf8')).trim()
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null
      throw error
    }
  }

  async setCommit(revision: string, commit: string): Promise<void> {
    if (isCommit(revision)) return
    const file = join(this.folder, 'refs', revision)
    await mkdir(dirname(file), { recursive: true })
    await writeFile(file, commit)
  }

  /** Puts a blob into a snapshot under its name: a relative link, or a copy where the system has no links. */
  async link(commit: string, name: string, hash: string): Promise<void> {
    const path = join(this.snapshot(commit), name)
    const blob = this.blob(hash)
    await mkdir(dirname(path), { recursive: true })
    // A link whose blob is gone is in the way.
    await rm(path, { force: true })
    try {
      await symlink(relative(dirname(path), blob), path)
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EPERM') throw error
      await copyFile(blob, path)
    }
  }
}

/** Names of the weight files of a checkpoint folder, by its index where it has one. */
export async function weightFiles(dir: string): Promise<string[]> {
  const index = await readJsonIfPresent(join(dir, INDEX), indexSchema)
  return index ? [...new Set(Object.values(index.weight_map))] : [SINGLE]
}

/** Whether a snapshot has what a model needs: another program may have fetched a part only. */
export async function isComplete(dir: string): Promise<boolean> {
  if (!REQUIRED.every((name) => existsSync(join(dir, name)))) return false
  return (await weightFiles(dir)).every((name) => existsSync(join(dir, name)))
}

export const SINGLE = 'model.safetensors'
export const INDEX = 'model.safetensors.index.json'
const REQUIRED = ['config.json', 'tokenizer.json']
