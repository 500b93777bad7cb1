/** The certificate of a run's own server, checked before anything else of the run is begun. */
import { readServerTls, type ServerTls } from '../../bus/nats/certificates.ts'
import { ConfigError } from '../../configs/errors.ts'
import type { Config } from '../../configs/schema.ts'

/** Null for a server without TLS. Throws ConfigError for settings that contradict each other, NatsServerError for files. */
export async function serverTls({ bus }: Config): Promise<ServerTls | null> {
  const { cert, key, ca } = bus.tls
  if (bus.nats !== null) {
    if (cert === null && key === null) return null
    throw new ConfigError('--tls-cert and --tls-key are for the own server of a run, not for that of --nats')
  }
  if (bus.creds !== null)
    throw new ConfigError('--creds is for the server of --nats; the own one makes its keys itself')
  if (cert === null && key === null) {
    if (ca !== null) throw new ConfigError('--tls-ca needs --tls-cert and --tls-key, or --nats')
    return null
  }
  if (cert === null || key === null) throw new ConfigError('--tls-cert and --tls-key belong together: give both')
  return readServerTls({ cert, key, ca })
}
