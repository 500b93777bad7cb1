/** The blobs of a run as one process has them: found where they are, or put where its owner wants them. */
import { rm } from 'node:fs/promises'
import type { Lifetime } from '../lifetime.ts'
import type { Access } from './access.ts'
import { BlobFiles } from './blob-files.ts'
import type { BlobLink } from './blob-link.ts'
import { announcePlace, findFiles } from './blob-place.ts'
import { NatsBlobs, type BlobPlace } from './blobs.ts'
import { FileBlobs } from './file-blobs.ts'
import { ObjectBlobs } from './object-blobs.ts'
import type { NatsOptions } from './shared.ts'

const CACHE_BYTES = 256 * 1024 * 1024

export interface OpenBlobs {
  readonly blobs: NatsBlobs
  close(): Promise<void>
}

/** Throws BlobError when they are where this process can neither read nor write. */
export async function openBlobs(
  link: BlobLink,
  access: Access,
  life: Lifetime,
  { blobs: wanted, blobCacheBytes = CACHE_BYTES }: NatsOptions,
): Promise<OpenBlobs> {
  const server = new ObjectBlobs(link, life)
  const files = await filesOf(link, access, wanted, server)
  const { patienceMs } = link
  const place = files ? new FileBlobs({ files, server, life, patienceMs }) : server
  return { blobs: new NatsBlobs(place, blobCacheBytes), close: async () => files?.close() }
}

async function filesOf(
  { jsm, run }: BlobLink,
  access: Access,
  wanted: string | null | undefined,
  server: BlobPlace,
): Promise<BlobFiles | null> {
  if (wanted === undefined) return findFiles(jsm, run, access)
  const files = wanted === null ? null : new BlobFiles(wanted)
  if (files === null && access.blobs !== null) await moveTo(server, new BlobFiles(access.blobs))
  await announcePlace(jsm, run, files)
  if (files === null && access.blobs !== null) await rm(access.blobs, { recursive: true })
  return files
}

/** A run that other machines may join from now on. */
async function moveTo(server: BlobPlace, files: BlobFiles): Promise<void> {
  for (const name of await files.names()) {
    const bytes = await files.read(name)
    if (bytes) await server.store(name, bytes)
  }
}
