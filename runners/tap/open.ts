/** Where a run can be heard: on its server, or, when it has ended, on one that is started to read its log. */
import { Tap } from '../../bus/nats/tap.ts'
import { UsageError } from '../cli/fail.ts'
import { serverOf } from './server-of.ts'

/** @param run the name of a run on the server at `url`; without a `url`, the folder of a run. */
export async function openTap(
  url: string | undefined,
  run: string | undefined,
): Promise<{ tap: Tap; close: () => Promise<void> }> {
  if (url !== undefined) {
    if (run === undefined) throw new UsageError('--nats needs --run, the name of the run on that server')
    return openAt(url, run)
  }
  const server = await serverOf(run!, 'tap')
  try {
    const { tap, close } = await openAt(server.url, server.run)
    return { tap, close: () => close().finally(server.stop) }
  } catch (error) {
    await server.stop()
    throw error
  }
}

async function openAt(url: string, run: string): Promise<{ tap: Tap; close: () => Promise<void> }> {
  const tap = await Tap.open(url, run)
  return { tap, close: () => tap.close() }
}
