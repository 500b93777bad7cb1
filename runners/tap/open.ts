/** Where a run can be heard: on its server, or, when it has ended, on one that is started to read its log. */
import type { Access } from '../../bus/nats/access.ts'
import { Tap } from '../../bus/nats/tap.ts'
import { UsageError } from '../cli/fail.ts'
import { serverOf } from './server-of.ts'

/** @param run the name of a run on the server that is given; without one, the folder of a run. */
export async function openTap(
  given: Access | undefined,
  run: string | undefined,
): Promise<{ tap: Tap; close: () => Promise<void> }> {
  if (given !== undefined) {
    if (run === undefined) throw new UsageError('--nats needs --run, the name of the run on that server')
    return openAt(given, run)
  }
  const server = await serverOf(run!, 'tap')
  try {
    const { tap, close } = await openAt(server.access, server.run)
    return { tap, close: () => close().finally(server.stop) }
  } catch (error) {
    await server.stop()
    throw error
  }
}

async function openAt(access: Access, run: string): Promise<{ tap: Tap; close: () => Promise<void> }> {
  const tap = await Tap.open(access, run)
  return { tap, close: () => tap.close() }
}
