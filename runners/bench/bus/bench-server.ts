/** A run on a NATS server of its own, in a folder that is removed afterwards. */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { blobFolder } from '../../../bus/nats/blob-files.ts'
import { credentialsFile } from '../../../bus/nats/credentials.ts'
import { connectNet } from '../../../bus/nats/net.ts'
import { startServer } from '../../../bus/nats/server.ts'
import type { Net } from '../../../bus/net.ts'
import { Closing } from '../../evolve/closing.ts'

export interface BenchRun {
  readonly run: string
  readonly net: Net
  readonly serverPid: number
  readonly url: string
  /** Credentials of processes that join as workers. */
  readonly workerCreds: string
  /** Of a tap. */
  readonly tapCreds: string
  /** For files of the run. */
  readonly dir: string
}

/** As in a run of one machine, or as in one that other machines may join. */
export type BlobsAt = 'files' | 'server'

/** Does `job` with the owner's connection to a fresh run; the server is closed to all but its roles, as that of any run. */
export async function withRun<T>(run: string, place: BlobsAt, job: (bench: BenchRun) => Promise<T>): Promise<T> {
  const closing = new Closing()
  try {
    const dir = closing.add(await mkdtemp(join(tmpdir(), 'visplay-bench-')), (d) => rm(d, { recursive: true }))
    const storeDir = join(dir, 'nats')
    const blobs = place === 'files' ? blobFolder(storeDir) : null
    const server = closing.add(await startServer({ storeDir, run }), (s) => s.stop())
    const net = closing.add(await connectNet(server.access, run, { blobs, readLogOnce: true }), (n) => n.close())
    const [workerCreds, tapCreds] = [credentialsFile(storeDir, 'worker'), credentialsFile(storeDir, 'tap')]
    return await job({ run, net, serverPid: server.pid, url: server.url, workerCreds, tapCreds, dir })
  } finally {
    await closing.close()
  }
}
