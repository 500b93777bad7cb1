/** Work that died with its workers. */
import { jetstreamManager } from '@nats-io/jetstream'
import { stores } from '../subjects.ts'
import type { Access } from './access.ts'
import { connectNats } from './connect.ts'

/**
 * Makes every unfinished task of a run deliverable at once, with all its deliveries before it. For whoever knows that
 * nobody works on the run, having just started its server: otherwise the tasks of a killed process come back only after
 * the acknowledgement time, and each kill brings them nearer to being given up.
 */
export async function reclaimTasks(access: Access, run: string): Promise<void> {
  const connection = await connectNats({ access, name: `visplay ${run} reclaim` })
  try {
    const { streams, consumers } = await jetstreamManager(connection)
    const stream = stores.tasks(run)
    const names = await streams.names().next()
    if (!names.includes(stream)) return
    // A queue keeps what was not acknowledged; a consumer made anew delivers it from the beginning.
    for await (const { name } of consumers.list(stream)) await consumers.delete(stream, name)
  } finally {
    await connection.close()
  }
}
