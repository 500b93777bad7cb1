/** Where a run can be heard: on its server, or, when it has ended, on one that is started to read its log. */
import { join } from 'node:path'
import { startServer } from '../../bus/nats/server.ts'
import { ownedServer } from '../../bus/nats/store-owner.ts'
import { Tap } from '../../bus/nats/tap.ts'
import { readConfig } from '../../configs/load.ts'
import { UsageError } from '../cli/fail.ts'

/** @param run the name of a run on the server at `url`; without a `url`, the folder of a run. */
export async function openTap(
  url: string | undefined,
  run: string | undefined,
): Promise<{ tap: Tap; close: () => Promise<void> }> {
  if (url !== undefined) {
    if (run === undefined) throw new UsageError('--nats needs --run, the name of the run on that server')
    return openAt(url, run)
  }
  const config = readConfig(join(run!, 'config.yaml'))
  if (config.bus.nats !== null) return openAt(config.bus.nats, config.run!)
  const storeDir = join(run!, 'nats')
  const served = await ownedServer(storeDir, 'tap')
  if (served !== null) return openAt(served, config.run!)
  const server = await startServer({ storeDir, run: config.run! })
  try {
    const { tap, close } = await openAt(server.url, config.run!)
    return { tap, close: () => close().finally(() => server.stop()) }
  } catch (error) {
    await server.stop()
    throw error
  }
}

async function openAt(url: string, run: string): Promise<{ tap: Tap; close: () => Promise<void> }> {
  const tap = await Tap.open(url, run)
  return { tap, close: () => tap.close() }
}
