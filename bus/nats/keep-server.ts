/** A server that is started again on the same port when it dies: whoever is connected comes back by itself. */
import { startServer, type NatsServer, type StartOptions } from './server.ts'

/** A server that lives shorter than this has not come up. */
const UP_MS = 2_000
/** Attempts in a row to bring it up. */
const MAX_ATTEMPTS = 5

/** Starts a server; `onDeath` is told when it has died, and when it does not come up any more. */
export async function keepServer(options: StartOptions, onDeath: (message: string) => void): Promise<NatsServer> {
  let server = await startServer(options)
  const { url, port, version, logFile } = server
  let stopping = false
  const keep = async (): Promise<void> => {
    for (let attempts = 0; ;) {
      const started = Date.now()
      await server.exited
      if (stopping) return
      attempts = Date.now() - started < UP_MS ? attempts + 1 : 1
      if (attempts > MAX_ATTEMPTS) return onDeath(`the NATS server died ${attempts} times in a row (see ${logFile})`)
      onDeath('the NATS server has died and is started again')
      try {
        server = await startServer({ ...options, port })
      } catch (error) {
        return onDeath(`the NATS server does not come up again: ${(error as Error).message}`)
      }
      if (stopping) return server.stop()
    }
  }
  const exited = keep()
  return {
    url,
    port,
    version,
    logFile,
    get pid() {
      return server.pid
    },
    exited,
    stop: async () => {
      stopping = true
      await server.stop()
      await exited
    },
  }
}
