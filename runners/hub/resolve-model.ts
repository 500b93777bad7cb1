/** What `--model` names: a folder of this machine, or a model of the Hugging Face hub. */
import { existsSync, readdirSync } from 'node:fs'
import { homedir } from 'node:os'
import { basename, dirname, join, resolve } from 'node:path'
import { suggestion } from '../../configs/suggest.ts'
import { HubError } from './errors.ts'
import { fetchModel, type FetchOptions } from './fetch-model.ts'
import { parseHubName } from './name.ts'

export interface ResolvedModel {
  /** Absolute. */
  readonly dir: string
  /** `owner/name@commit`, or null for a folder of the user's. */
  readonly hub: string | null
}

/**
 * An existing folder is that folder; what else looks like `owner/name[@revision]` is fetched, unless a folder of nearly
 * that name is here. Throws HubError in one line.
 */
export async function resolveModel(value: string, options: FetchOptions): Promise<ResolvedModel> {
  const dir = resolve(value.startsWith('~/') ? join(homedir(), value.slice(2)) : value)
  if (existsSync(dir)) return { dir, hub: null }
  const name = parseHubName(value)
  const near = suggestion(basename(dir), neighbours(dir))
  if (name === null || near !== '') {
    const hub = name === null ? '; a model of the Hugging Face hub is written owner/name' : ''
    throw new HubError(`there is no folder ${dir}${near}${hub}`)
  }
  const { dir: fetched, commit } = await fetchModel(name, options)
  return { dir: fetched, hub: `${name.repo}@${commit}` }
}

/** Names of the folders beside a path. */
function neighbours(dir: string): string[] {
  const parent = dirname(dir)
  if (!existsSync(parent)) return []
  return readdirSync(parent, { withFileTypes: true }).flatMap((e) => (e.isDirectory() ? [e.name] : []))
}
