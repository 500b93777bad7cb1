/**
 * Where the blobs of a run are: in the object store of its server, or files of a folder that every process of its
 * machine finds. The stream of the object store says which, in its metadata.
 */
import type { JetStreamManager } from '@nats-io/jetstream'
import { z } from 'zod'
import { BlobError } from '../bus.ts'
import { stores } from '../subjects.ts'
import type { Access } from './access.ts'
import { BlobFiles } from './blob-files.ts'

const FOLDER = 'visplay-blobs'
const MARK = 'visplay-blobs-id'
const placeSchema = z.object({ [FOLDER]: z.string().min(1), [MARK]: z.string().min(1) })

const streamOf = (run: string): string => `OBJ_${stores.blobs(run)}`

/** Who owns the run says where its blobs are from now on; null = on the server. */
export async function announcePlace(jsm: JetStreamManager, run: string, files: BlobFiles | null): Promise<void> {
  const { config } = await jsm.streams.info(streamOf(run))
  const { [FOLDER]: folder, [MARK]: mark, ...others } = config.metadata ?? {}
  const place = files && { [FOLDER]: files.folder, [MARK]: await files.prepare() }
  if (folder === place?.[FOLDER] && mark === place?.[MARK]) return
  await jsm.streams.update(streamOf(run), { ...config, metadata: { ...others, ...place } })
}

/** The files of a run, null when its blobs are on the server. Throws BlobError when they are where this process cannot read. */
export async function findFiles(jsm: JetStreamManager, run: string, access: Access): Promise<BlobFiles | null> {
  if (access.blobs !== null) return new BlobFiles(access.blobs)
  const { config } = await jsm.streams.info(streamOf(run))
  const place = placeSchema.safeParse(config.metadata)
  if (!place.success) return null
  const files = new BlobFiles(place.data[FOLDER])
  if ((await files.mark()) === place.data[MARK]) return files
  throw new BlobError(
    `the blobs of run ${run} are files that cannot be read here (${files.folder} on its machine): start it with ` +
      '--listen, or with --set bus.blobs=server',
  )
}
