/** One file of the hub into the cache: goes on where it broke, and counts only when its hash is right. */
import { createHash, type Hash } from 'node:crypto'
import { createReadStream, createWriteStream, existsSync } from 'node:fs'
import { mkdir, rename, rm, stat } from 'node:fs/promises'
import { dirname } from 'node:path'
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import type { ReadableStream } from 'node:stream/web'
import { downloadFile, HubApiError } from '@huggingface/hub'
import pRetry, { AbortError } from 'p-retry'
import type { HubCache } from './cache.ts'
import { DamagedFileError, HubError } from './errors.ts'

/** A file as the hub lists it. */
export interface HubFile {
  readonly path: string
  readonly size: number
  /** Of the content: sha256 of a large file, or the git object id (sha1) of a small one. It names the blob. */
  readonly hash: { readonly kind: 'sha256' | 'git'; readonly hex: string }
}

export interface HubAccess {
  readonly repo: string
  readonly commit: string
  readonly endpoint: string
  readonly token: string | undefined
  readonly fetch: typeof fetch
  readonly signal: AbortSignal
}

/** Tries after a connection broke, with pauses of 0.5, 1, 2, 4 s; each goes on at the byte where the last one ended. */
const RETRIES = 4
const FIRST_PAUSE_MS = 500

/**
 * Fetches the blob of a file unless the cache has it. `onBytes` is told of bytes as they come, those of an earlier try
 * included. Throws DamagedFileError, and forgets the bytes, when they are not those that the hub names.
 */
export async function transfer(
  access: HubAccess,
  cache: HubCache,
  file: HubFile,
  onBytes: (bytes: number) => void,
): Promise<void> {
  const blob = cache.blob(file.hash.hex)
  if (existsSync(blob)) return onBytes(file.size)
  const partial = `${blob}.incomplete`
  await mkdir(dirname(blob), { recursive: true })
  onBytes(Math.min(await sizeOf(partial), file.size))
  await pRetry(() => append(access, file, partial, onBytes).catch(giveUpIfRefused), {
    retries: RETRIES,
    minTimeout: FIRST_PAUSE_MS,
    signal: access.signal,
  })
  const found = await hashOf(partial, file)
  if (found !== file.hash.hex) {
    await rm(partial)
    throw new DamagedFileError(
      `${file.path} of ${access.repo} arrived damaged: its hash is ${found}, ${access.endpoint} says ${file.hash.hex}; try again`,
    )
  }
  await rename(partial, blob)
}

/** An answer of the hub is not changed by asking again, unless it says that it is broken or busy. */
function giveUpIfRefused(error: unknown): never {
  if (error instanceof HubApiError && error.statusCode < 500 && error.statusCode !== 429) throw new AbortError(error)
  if (error instanceof HubError) throw new AbortError(error)
  // p-retry takes a TypeError for a mistake in the program unless it knows the words; fetch throws one when a body breaks.
  if (error instanceof TypeError) throw new Error(error.message, { cause: error })
  throw error
}

async function append(
  { repo, commit, endpoint, token, fetch, signal }: HubAccess,
  { path, size }: HubFile,
  partial: string,
  onBytes: (bytes: number) => void,
): Promise<void> {
  const have = await sizeOf(partial)
  if (have >= size) return
  const remote = await downloadFile({
    repo,
    path,
    revision: commit,
    hubUrl: endpoint,
    fetch,
    // Plain HTTP can go on at any byte.
    xet: false,
    ...(token !== undefined && { accessToken: token }),
  })
  if (remote === null) throw new HubError(`${repo} has no file ${path} any more; try again`)
  const body = Readable.fromWeb(remote.slice(have, size).stream() as ReadableStream)
  body.on('data', (chunk: Uint8Array) => onBytes(chunk.length))
  await pipeline(body, createWriteStream(partial, { flags: 'a' }), { signal })
}

const sizeOf = async (file: string): Promise<number> => (await stat(file).catch(() => null))?.size ?? 0

async function hashOf(path: string, { hash }: HubFile): Promise<string> {
  const { size } = await stat(path)
  const sum: Hash = hash.kind === 'sha256' ? createHash('sha256') : createHash('sha1').update(`blob ${size}\0`)
  for await (const chunk of createReadStream(path)) sum.update(chunk as Buffer)
  return sum.digest('hex')
}
