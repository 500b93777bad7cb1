/** A checked connection to a NATS server. */
import { connect, type NatsConnection } from '@nats-io/transport-node'
import { NatsServerError, refusal } from './server-version.ts'

export interface ConnectOptions {
  /** `nats://host:port`, `tls://…`, or several separated by commas. */
  readonly url: string
  /** Shown in the server's list of connections. */
  readonly name: string
}

/** Connects for as long as the process lives: reconnects without end. Throws NatsServerError, one line with the remedy. */
export async function connectNats({ url, name }: ConnectOptions): Promise<NatsConnection> {
  let connection: NatsConnection
  try {
    connection = await connect({
      servers: url.split(','),
      name,
      maxReconnectAttempts: -1,
      reconnectTimeWait: 250,
      timeout: 5000,
      ignoreClusterUpdates: true,
      // Stack traces of every request cost a tenth of the time of a message.
      noAsyncTraces: true,
    })
  } catch (cause) {
    throw new NatsServerError(
      `no NATS server answers at ${url} (${(cause as Error).message}): start one there, or correct the URL`,
      { cause },
    )
  }
  const { version, jetstream } = connection.info!
  const reason = refusal(version) ?? (jetstream ? null : 'JetStream is off: start it with "-js" or a jetstream block')
  if (reason === null) return connection
  await connection.close()
  throw new NatsServerError(`the NATS server at ${url} is refused: ${reason}`)
}
