/** Certificates and keys as files: what is wrong with them is said before anybody connects. */
import { createPrivateKey, X509Certificate, type KeyObject } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { isIP } from 'node:net'
import { NatsServerError } from './server-version.ts'

/** What a server needs to speak TLS, checked. */
export interface ServerTls {
  /** Paths of PEM files. */
  readonly cert: string
  readonly key: string
  /** PEM of the file `cert`. */
  readonly pem: string
  readonly certificate: X509Certificate
  /** PEM file of what others must trust; null when their system does. */
  readonly ca: string | null
}

/**
 * Reads what `--tls-cert`, `--tls-key` and `--tls-ca` name. Throws NatsServerError, one line, for a file that is missing or
 * of another kind, a key of another certificate, and a certificate that is not valid now.
 */
export async function readServerTls(files: {
  readonly cert: string
  readonly key: string
  readonly ca: string | null
}): Promise<ServerTls> {
  const { cert, key } = files
  const { pem, first: certificate } = await readCertificates(cert)
  if (!certificate.checkPrivateKey(await readKey(key))) {
    throw new NatsServerError(`the key ${key} does not belong to the certificate ${cert}; give the pair of them`)
  }
  const now = new Date()
  if (now > new Date(certificate.validTo)) {
    throw new NatsServerError(`the certificate ${cert} has expired on ${certificate.validTo}; renew it`)
  }
  if (now < new Date(certificate.validFrom)) {
    throw new NatsServerError(`the certificate ${cert} is not valid before ${certificate.validFrom}; check the clock`)
  }
  if (files.ca !== null) await readCertificates(files.ca)
  return { cert, key, pem, certificate, ca: files.ca ?? (isSelfSigned(certificate) ? cert : null) }
}

const isSelfSigned = (certificate: X509Certificate): boolean =>
  certificate.checkIssued(certificate) && certificate.verify(certificate.publicKey)

/** A PEM file of one certificate or more. Throws NatsServerError that names it. */
export async function readCertificates(file: string): Promise<{ pem: string; first: X509Certificate }> {
  const pem = await readText(file, 'certificate')
  try {
    return { pem, first: new X509Certificate(pem) }
  } catch (cause) {
    throw new NatsServerError(`${file} holds no certificate in PEM`, { cause })
  }
}

async function readKey(file: string): Promise<KeyObject> {
  const pem = await readText(file, 'key')
  try {
    return createPrivateKey(pem)
  } catch (cause) {
    const locked = /ENCRYPTED/.test(pem)
    throw new NatsServerError(
      locked
        ? `the key ${file} is locked by a passphrase, which a server cannot be asked for; give one without`
        : `${file} holds no private key in PEM`,
      { cause },
    )
  }
}

async function readText(file: string, what: string): Promise<string> {
  try {
    return await readFile(file, 'utf8')
  } catch (cause) {
    const { code, message } = cause as NodeJS.ErrnoException
    const why = code === 'ENOENT' ? 'does not exist' : code === 'EACCES' ? 'may not be read by you' : `(${message})`
    throw new NatsServerError(`the ${what} ${file} ${why}`, { cause })
  }
}

/** Hosts that a certificate is for: names, then addresses; none with a wildcard. */
export function hostsOf(certificate: X509Certificate): string[] {
  const entries = [...(certificate.subjectAltName ?? '').matchAll(/(DNS|IP Address):([^,\s"]+)/g)]
  const names = entries.filter(([, kind]) => kind === 'DNS')
  return [...names, ...entries.filter(([, kind]) => kind !== 'DNS')]
    .map(([, , host]) => host!)
    .filter((h) => !h.includes('*'))
}

/** Whether who connects to `host`, a name or an address, will accept the certificate. */
export const isFor = (certificate: X509Certificate, host: string): boolean =>
  (isIP(host) ? certificate.checkIP(host) : certificate.checkHost(host)) !== undefined
