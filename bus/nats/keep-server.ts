/** A server that is started again on the same port when it dies: whoever is connected comes back by itself. */
import { setTimeout as sleep } from 'node:timers/promises'
import { startServer, type NatsServer, type StartOptions } from './server.ts'

/** After a shorter life the next start waits, longer each time. */
const UP_MS = 2_000
const MAX_PAUSE_MS = 5_000

/**
 * Starts a server; throws NatsServerError when it does not start at first. `onDeath` is told whenever it has died later
 * on. One that never comes back is what its clients lose patience with.
 */
export async function keepServer(options: StartOptions, onDeath: (message: string) => void): Promise<NatsServer> {
  let server = await startServer(options)
  const { access, url, port, version, logFile } = server
  const stopping = new AbortController()
  const keep = async (): Promise<void> => {
    let started = Date.now()
    for (let early = 0; ;) {
      await server.exited
      if (stopping.signal.aborted) return
      early = Date.now() - started < UP_MS ? early + 1 : 0
      onDeath(`the NATS server has died and is started again (its log: ${logFile})`)
      const pause = early <= 1 ? 0 : Math.min(MAX_PAUSE_MS, 100 * 2 ** early)
      await sleep(pause, undefined, { signal: stopping.signal }).catch(() => {})
      if (stopping.signal.aborted) return
      started = Date.now()
      try {
        server = await startServer({ ...options, port })
      } catch (error) {
        onDeath(`the NATS server does not start again: ${(error as Error).message}`)
      }
      if (stopping.signal.aborted) return server.stop()
    }
  }
  const exited = keep()
  return {
    access,
    url,
    port,
    version,
    logFile,
    get pid() {
      return server.pid
    },
    exited,
    stop: async () => {
      stopping.abort()
      await server.stop()
      await exited
    },
  }
}
