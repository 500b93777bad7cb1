/** A model of the Hugging Face hub as a folder of the shared cache. */
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { HUB_URL, listFiles, modelInfo } from '@huggingface/hub'
import { HubCache, INDEX, isComplete, SINGLE, weightFiles } from './cache.ts'
import { explain, HubError, isAway, offlineError, reasonOf, spell } from './errors.ts'
import { isCommit, type HubName } from './name.ts'
import { transfer, type HubAccess, type HubFile } from './transfer.ts'

export interface FetchOptions {
  readonly onProgress: (progress: HubProgress) => void
  /** Told of what should not pass unseen. */
  readonly onNote: (message: string) => void
  readonly signal: AbortSignal
}

/** Bytes of all files that are needed, those that were there already included. */
export interface HubProgress {
  readonly name: string
  readonly done: number
  readonly total: number
}

export interface FetchedModel {
  readonly dir: string
  readonly commit: string
}

/** What a model needs besides its weights; other files of a repository stay where they are. */
const NEEDED: ReadonlySet<string> = new Set([
  'config.json',
  'generation_config.json',
  'preprocessor_config.json',
  'processor_config.json',
  'image_processor_config.json',
  'tokenizer.json',
  'tokenizer_config.json',
  'special_tokens_map.json',
  'added_tokens.json',
  'chat_template.jinja',
  'chat_template.json',
  'visplay.json',
])

/**
 * The folder of a model, fetched where the cache lacks it. `HF_ENDPOINT`, `HF_TOKEN`, `HF_HOME`, `HF_HUB_CACHE` and
 * `HF_HUB_OFFLINE` mean what they mean to Python's huggingface_hub. A commit that is in the cache, or anything in the
 * cache while offline, needs no request.
 *
 * @throws HubError in one line that says what to place where.
 */
export async function fetchModel(name: HubName, options: FetchOptions): Promise<FetchedModel> {
  const cache = new HubCache(name.repo)
  const known = await cache.commitOf(name.revision)
  const here = known !== null && (await isComplete(cache.snapshot(known))) ? known : null
  const cached = here === null ? null : { dir: cache.snapshot(here), commit: here }
  if (cached && (isCommit(name.revision) || isOffline())) return cached
  if (isOffline()) throw offlineError(name)
  const endpoint = (process.env['HF_ENDPOINT'] || HUB_URL).replace(/\/+$/, '')
  try {
    return await ask(name, cache, endpoint, options)
  } catch (error) {
    options.signal.throwIfAborted()
    if (!cached || !isAway(error)) throw explain(name, endpoint, error)
    options.onNote(`${endpoint} cannot be asked (${reasonOf(error)}): ${spell(name)} is commit ${here} of the cache`)
    return cached
  }
}

const isOffline = (): boolean => /^(1|true|yes|on)$/i.test(process.env['HF_HUB_OFFLINE'] ?? '')

async function ask(name: HubName, cache: HubCache, endpoint: string, options: FetchOptions): Promise<FetchedModel> {
  const { signal } = options
  const token = process.env['HF_TOKEN'] || undefined
  if (token?.startsWith('hf_') === false) throw new HubError('HF_TOKEN is no token of the hub: those begin with hf_')
  const common = {
    hubUrl: endpoint,
    fetch: ((url, init) => fetch(url, { ...init, signal })) as typeof fetch,
    ...(token !== undefined && { accessToken: token }),
  }
  const { sha: commit } = await modelInfo({
    ...common,
    name: name.repo,
    revision: name.revision,
    additionalFields: ['sha'],
  })
  if (!isCommit(commit)) throw new HubError(`${endpoint} names no commit of ${spell(name)}`)
  const files = new Map<string, HubFile>()
  for await (const entry of listFiles({ ...common, repo: name.repo, revision: commit })) {
    if (entry.type === 'file') files.set(entry.path, asFile(entry))
  }
  const access: HubAccess = { repo: name.repo, commit, endpoint, token, fetch: common.fetch, signal }
  await fetchFiles(access, cache, files, options)
  await cache.setCommit(name.revision, commit)
  return { dir: cache.snapshot(commit), commit }
}

function asFile({
  path,
  size,
  oid,
  lfs,
}: {
  path: string
  size: number
  oid?: string
  lfs?: { oid: string }
}): HubFile {
  const hex = lfs?.oid ?? oid ?? ''
  // It becomes a file name.
  if (!/^[0-9a-f]{40,64}$/.test(hex)) throw new HubError(`the hub lists ${path} without a hash`)
  return { path, size, hash: { kind: lfs ? 'sha256' : 'git', hex } }
}

/** Small files first: the index says which weights there are. */
async function fetchFiles(
  access: HubAccess,
  cache: HubCache,
  files: ReadonlyMap<string, HubFile>,
  { onProgress, signal }: FetchOptions,
): Promise<void> {
  const dir = cache.snapshot(access.commit)
  const small = [...files.values()].filter(({ path }) => NEEDED.has(path) || path === INDEX)
  const shards = [...files.values()].filter(({ path }) => /^model(-\d+-of-\d+)?\.safetensors$/.test(path))
  const likely = files.has(INDEX) ? shards.filter(({ path }) => path !== SINGLE) : shards
  const total = [...small, ...likely].reduce((sum, { size }) => sum + size, 0)
  let done = 0
  const get = async (file: HubFile): Promise<void> => {
    signal.throwIfAborted()
    // Nothing is said of what is there already, but it counts.
    if (existsSync(join(dir, file.path))) return void (done += file.size)
    const onBytes = (bytes: number) => onProgress({ name: access.repo, done: (done += bytes), total })
    await transfer(access, cache, file, onBytes)
    await cache.link(access.commit, file.path, file.hash.hex)
  }
  if (!files.has('config.json')) throw notAModel(access, 'config.json')
  for (const file of small) await get(file)
  for (const path of await weightFiles(dir)) {
    const file = files.get(path)
    if (!file) throw notAModel(access, path)
    await get(file)
  }
}

const notAModel = ({ repo }: HubAccess, file: string): HubError =>
  new HubError(`${repo} has no ${file}: it is no checkpoint that visplay can read (safetensors with config.json)`)
