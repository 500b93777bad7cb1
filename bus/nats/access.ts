/** How a server is reached, and as whom. What is secret is inside of functions, so that an Access may be shown. */
import {
  credsAuthenticator,
  nkeyAuthenticator,
  tokenAuthenticator,
  usernamePasswordAuthenticator,
  type Authenticator,
} from '@nats-io/nats-core'
import { readFile } from 'node:fs/promises'
import { readCertificates } from './certificates.ts'
import { parseRoleKey } from './credentials.ts'
import { NatsServerError } from './server-version.ts'

export interface Access {
  /** `nats://host:port` or `tls://host:port`, several separated by commas; never with credentials. */
  readonly url: string
  /** Whose inbox answers come to: a role on the server of a run, the user on one that knows names; else null. */
  readonly user: string | null
  /** Answers the server when it asks who this is; null for a server that is open. */
  readonly authenticator: Authenticator | null
  /** Null: as the system does. */
  readonly trust: Trust | null
  /** The folder on this machine where blobs of the run are files, if that is known; null = as the server says. */
  readonly blobs: string | null
}

/** Which certificates of servers are good. */
export interface Trust {
  /** PEM of the certificate authorities instead of those of the system; null = those of the system. */
  readonly ca: string | null
  /** DER of the one certificate that is meant, whatever host it names; null = one that names the host. */
  readonly pinned: Buffer | null
}

const UNKNOWN = { trust: null, blobs: null } as const

/** An address with what it says about who connects taken out of it. Throws NatsServerError for what is no address. */
export function accessTo(address: string): Access {
  const servers = address.split(',').map(parseServer)
  const { username, password } = servers[0]!
  const url = servers.map(({ protocol, host }) => `${protocol}//${host}`).join(',')
  const [user, pass] = [decodeURIComponent(username), decodeURIComponent(password)]
  if (user === '') return { url, user: null, authenticator: null, ...UNKNOWN }
  if (pass === '') return { url, user: null, authenticator: tokenAuthenticator(user), ...UNKNOWN }
  return { url, user, authenticator: usernamePasswordAuthenticator(user, pass), ...UNKNOWN }
}

function parseServer(address: string): URL {
  const server = URL.canParse(address) ? new URL(address) : null
  if (server?.host && ['nats:', 'tls:'].includes(server.protocol)) return server
  // Not shown: it may hold a password.
  throw new NatsServerError(
    'the address of a NATS server is nats://host:4222 or tls://host:4222, or several with commas',
  )
}

/** Files that say more than an address. */
export interface AccessFiles {
  /** Of a role of a run (nats/*.creds in its folder), or what NATS calls a credentials file (JWT and seed). */
  readonly creds?: string | null | undefined
  /** PEM of the certificate authorities that the server's certificate may come from. */
  readonly ca?: string | null | undefined
}

/** An address with what files say. Throws NatsServerError, one line that names the file. */
export async function accessWith(address: string, { creds, ca }: AccessFiles): Promise<Access> {
  let access = accessTo(address)
  if (creds) access = { ...access, ...(await identityIn(creds)) }
  if (!ca) return access
  if (!isTls(access.url)) {
    throw new NatsServerError(`--tls-ca is for an address that begins with tls://, not for ${access.url}`)
  }
  return { ...access, trust: { ca: (await readCertificates(ca)).pem, pinned: null } }
}

/** One server that wants TLS is enough: none of the others then goes without. */
export const isTls = (url: string): boolean => url.split(',').some((server) => server.startsWith('tls:'))

/** Who a file of credentials makes somebody; throws NatsServerError for a file of another kind. */
export async function identityIn(file: string): Promise<Pick<Access, 'user' | 'authenticator'>> {
  const text = await readFile(file, 'utf8')
  if (/-----BEGIN NATS USER JWT-----[^]*-----BEGIN USER NKEY SEED-----/.test(text)) {
    const authenticator = credsAuthenticator(Buffer.from(text))
    try {
      authenticator('a nonce')
    } catch (cause) {
      throw new NatsServerError(`${file} is damaged: its JWT or its seed cannot be read; copy it again`, { cause })
    }
    return { user: null, authenticator }
  }
  const { role, seed } = parseRoleKey(text, file)
  return { user: role, authenticator: nkeyAuthenticator(seed) }
}
