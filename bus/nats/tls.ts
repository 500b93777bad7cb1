/** TLS as the client library is to speak it, and what it says when that fails. */
import type { TlsOptions } from '@nats-io/nats-core'
import { checkServerIdentity, type ConnectionOptions } from 'node:tls'
import { isTls, type Access } from './access.ts'

/** For a `tls:` address: options of node:tls, which the client library hands on; undefined for others. */
export function tlsOptions({ url, trust }: Access): TlsOptions | undefined {
  if (!isTls(url)) return undefined
  const hosts = url.split(',').map((server) => new URL(server).hostname.replaceAll(/[[\]]/g, ''))
  const options: TlsOptions & Pick<ConnectionOptions, 'checkServerIdentity' | 'minVersion'> = {
    minVersion: 'TLSv1.2',
    ...(trust?.ca && { ca: trust.ca }),
    // By itself the library compares a certificate with "localhost" when it connects to an IP address.
    checkServerIdentity: (_, certificate) => {
      if (trust?.pinned) {
        return certificate.raw.equals(trust.pinned) ? undefined : new Error('it is not the certificate of this run')
      }
      const errors = hosts.map((host) => checkServerIdentity(host, certificate))
      return errors.includes(undefined) ? undefined : errors[0]
    },
  }
  return options
}

/** What OpenSSL calls a chain that ends in nothing that is trusted. */
const UNTRUSTED: readonly string[] = [
  'DEPTH_ZERO_SELF_SIGNED_CERT',
  'SELF_SIGNED_CERT_IN_CHAIN',
  'UNABLE_TO_GET_ISSUER_CERT',
  'UNABLE_TO_GET_ISSUER_CERT_LOCALLY',
  'UNABLE_TO_VERIFY_LEAF_SIGNATURE',
  'CERT_SIGNATURE_FAILURE',
  'CERT_UNTRUSTED',
  'INVALID_CA',
]
const WRONG_HOST = 'ERR_TLS_CERT_ALTNAME_INVALID'
const TIMES: Readonly<Record<string, string>> = {
  CERT_HAS_EXPIRED: 'has expired; its owner must renew it',
  CERT_NOT_YET_VALID: 'is not valid yet; check the clocks of both machines',
}

/** One line that says what to do; null for an error that is not about TLS. */
export function tlsProblem({ url, trust }: Access, error: unknown): string | null {
  const chain = causes(error)
  if (chain.some(({ message }) => message.includes("does not support 'tls'"))) {
    return `the NATS server at ${url} does not speak TLS: write nats:// for it, or start the run with --tls-cert and --tls-key`
  }
  const found = chain.find(({ code = '' }) => UNTRUSTED.includes(code) || code in TIMES || code === WRONG_HOST)
  if (found?.code === undefined) return null
  if (!isTls(url)) {
    return `the NATS server at ${url} speaks TLS: write tls:// for it, with --tls-ca FILE if it is not of a public authority`
  }
  const { code, message, reason } = found
  const about = `the certificate of the NATS server at ${url}`
  if (code in TIMES) return `${about} ${TIMES[code]}`
  if (code === WRONG_HOST) return `${about} is for another host (${reason ?? message}): use a name that it holds`
  const remedy = trust?.ca
    ? 'it does not come from what --tls-ca names'
    : 'name the certificate of its authority with --tls-ca FILE'
  return `${about} is not trusted (${message}): ${remedy}`
}

/** `reason` is the short form of a message of node:tls. */
function causes(error: unknown): (NodeJS.ErrnoException & { readonly reason?: string })[] {
  if (!(error instanceof Error)) return []
  return [error, ...causes(error.cause)]
}
