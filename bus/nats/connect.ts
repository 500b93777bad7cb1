/** A checked connection to a NATS server. */
import { errors } from '@nats-io/nats-core'
import { connect, type NatsConnection } from '@nats-io/transport-node'
import { inboxOf } from './roles.ts'
import { NatsServerError, refusal } from './server-version.ts'

export interface ConnectOptions {
  /** `nats://host:port`, `tls://…`, or several separated by commas; `nats://ROLE:SECRET@host:port` for a closed one. */
  readonly url: string
  /** Shown in the server's list of connections. */
  readonly name: string
}

/** Connects for as long as the process lives: reconnects without end. Throws NatsServerError, one line with the remedy. */
export async function connectNats({ url, name }: ConnectOptions): Promise<NatsConnection> {
  let connection: NatsConnection
  const { servers, ...credentials } = withoutCredentials(url)
  const where = servers.join(',')
  try {
    connection = await connect({
      servers,
      ...credentials,
      ...(credentials.user !== undefined && { inboxPrefix: inboxOf(credentials.user) }),
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
    if (cause instanceof errors.AuthorizationError) {
      throw new NatsServerError(
        `the NATS server at ${where} refuses: give a role and its secret as nats://worker:SECRET@host:port, or with --creds FILE`,
        { cause },
      )
    }
    throw new NatsServerError(
      `no NATS server answers at ${where} (${(cause as Error).message}): start one there, or correct the URL`,
      { cause },
    )
  }
  const { version, jetstream } = connection.info!
  const reason = refusal(version) ?? (jetstream ? null : 'JetStream is off: start it with "-js" or a jetstream block')
  if (reason === null) return connection
  await connection.close()
  throw new NatsServerError(`the NATS server at ${where} is refused: ${reason}`)
}

/** The client takes credentials apart from the addresses; messages must not show them. */
export function withoutCredentials(url: string): { servers: string[]; token?: string; user?: string; pass?: string } {
  const parsed = url.split(',').map((server) => new URL(server))
  const servers = parsed.map(({ protocol, host }) => `${protocol}//${host}`)
  const { username, password } = parsed[0]!
  if (username === '') return { servers }
  const [user, pass] = [decodeURIComponent(username), decodeURIComponent(password)]
  return pass === '' ? { servers, token: user } : { servers, user, pass }
}
