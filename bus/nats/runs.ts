/** Which runs a server has. */
import { jetstreamManager } from '@nats-io/jetstream'
import type { Access } from './access.ts'
import { connectNats } from './connect.ts'

/** Names of the runs on a server, whether somebody works on them or not. */
export async function runsAt(access: Access): Promise<string[]> {
  const connection = await connectNats({ access, name: 'visplay runs' })
  try {
    const names: string[] = []
    for await (const name of (await jetstreamManager(connection)).streams.names()) {
      const run = /^VISPLAY_(.+)_LOG$/.exec(name)?.[1]
      if (run !== undefined) names.push(run)
    }
    return names.toSorted()
  } finally {
    await connection.close()
  }
}
