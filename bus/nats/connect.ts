/** A checked connection to a NATS server. */
import { errors } from '@nats-io/nats-core'
import { connect, type NatsConnection } from '@nats-io/transport-node'
import type { Access } from './access.ts'
import { inboxOf } from './roles.ts'
import { NatsServerError, refusal } from './server-version.ts'
import { tlsOptions, tlsProblem } from './tls.ts'

export interface ConnectOptions {
  readonly access: Access
  /** Shown in the server's list of connections. */
  readonly name: string
}

/** Connects for as long as the process lives: reconnects without end. Throws NatsServerError, one line with the remedy. */
export async function connectNats({ access, name }: ConnectOptions): Promise<NatsConnection> {
  let connection: NatsConnection
  const { url, user, authenticator } = access
  const tls = tlsOptions(access)
  try {
    connection = await connect({
      servers: url.split(','),
      ...(authenticator && { authenticator }),
      ...(user !== null && { inboxPrefix: inboxOf(user) }),
      ...(tls && { tls }),
      name,
      maxReconnectAttempts: -1,
      reconnectTimeWait: 250,
      timeout: 5000,
      // A connection that died without a word, as in a cut network, is noticed within three pings.
      pingInterval: 5000,
      maxPingOut: 2,
      ignoreClusterUpdates: true,
      // Stack traces of every request cost a tenth of the time of a message.
      noAsyncTraces: true,
    })
  } catch (cause) {
    throw new NatsServerError(reasonOf(access, cause), { cause })
  }
  const { version, jetstream } = connection.info!
  const reason = refusal(version) ?? (jetstream ? null : 'JetStream is off: start it with "-js" or a jetstream block')
  if (reason === null) return connection
  await connection.close()
  throw new NatsServerError(`the NATS server at ${url} is refused: ${reason}`)
}

function reasonOf(access: Access, cause: unknown): string {
  const { url } = access
  if (cause instanceof errors.AuthorizationError) {
    return (
      `the NATS server at ${url} refuses: give the file of a role with --creds FILE (nats/*.creds in the folder of the ` +
      'run), or write nats://USER:PASSWORD@host:port for a server of your own'
    )
  }
  return (
    tlsProblem(access, cause) ??
    `no NATS server answers at ${url} (${(cause as Error).message}): start one there, or correct the URL`
  )
}
