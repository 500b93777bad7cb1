/** What somebody types to take part in a run, and what they need for it. Holds no secret. */
import { hostname } from 'node:os'
import { basename, join } from 'node:path'
import type { Access } from '../../bus/nats/access.ts'
import { hostsOf, isFor, type ServerTls } from '../../bus/nats/certificates.ts'
import { credentialsFile } from '../../bus/nats/credentials.ts'
import { caFile } from '../../bus/nats/store-owner.ts'
import type { RunConfig } from './evolve.ts'

export interface Invitation {
  readonly command: string
  /** Files that must be copied to another machine first. */
  readonly files: readonly string[]
}

export const isLoopback = (host: string): boolean => host === 'localhost' || host === '::1' || host.startsWith('127.')

/** For a worker. The files are named by their place where only this machine can join, else by their names alone. */
export function invitation({ run, out, bus }: RunConfig, access: Access, tls: ServerTls | null): Invitation {
  const own = bus.nats === null
  const store = join(out, 'nats')
  const creds = own ? credentialsFile(store, 'worker') : null
  const ca = own ? (tls?.ca ? caFile(store) : null) : bus.tls.ca
  const local = own && isLoopback(bus.listen)
  const named = (option: string, file: string | null) =>
    file === null ? '' : ` ${option} ${shellWord(local ? file : basename(file))}`
  const address = own ? ownAddress(access.url, bus.listen, tls) : foreignAddress(access, bus.creds)
  // On a server of the user's, everybody has credentials of their own.
  const who = own || bus.creds === null ? named('--creds', creds) : ' --creds FILE'
  const command = `npx visplay join ${address} --run ${run}${who}${named('--tls-ca', ca)}`
  return { command, files: local ? [] : [creds, ca].filter((file) => file !== null) }
}

/** A server on every interface is reached by the name of this machine, one with a certificate by a name that it holds. */
function ownAddress(url: string, listen: string, tls: ServerTls | null): string {
  const { protocol, port } = new URL(url)
  const everywhere = listen === '0.0.0.0' || listen === '::'
  const known = isLoopback(listen) ? ['127.0.0.1', 'localhost'] : [everywhere ? hostname() : listen]
  const candidates =
    tls === null ? known : [...known.filter((h) => isFor(tls.certificate, h)), ...hostsOf(tls.certificate)]
  const host = candidates[0] ?? known[0]!
  return `${protocol}//${host.includes(':') ? `[${host}]` : host}:${port}`
}

/** The user's own server: who was named in its address is not shown. */
function foreignAddress({ url, authenticator }: Access, creds: string | null): string {
  return authenticator !== null && creds === null ? url.replace('://', '://USER:PASSWORD@') : url
}

const shellWord = (text: string): string =>
  /^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", String.raw`'\''`)}'`
