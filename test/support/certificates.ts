/** Certificates made at the time of a test: an authority, and what it signs. */
import { writeFile } from 'node:fs/promises'
import { isIP } from 'node:net'
import { join } from 'node:path'
import { generate } from 'selfsigned'

export interface Pair {
  /** Paths of PEM files. */
  readonly cert: string
  readonly key: string
  /** PEM. */
  readonly pem: { readonly cert: string; readonly key: string }
}

export interface CertificateOptions {
  /** Names and IP addresses. */
  readonly hosts?: readonly string[]
  /** Signs it; it signs itself when left out. */
  readonly by?: Pair
  readonly authority?: boolean
  readonly from?: Date
  readonly to?: Date
}

/** Writes `<name>.pem` and `<name>.key` into `dir`. */
export async function makeCertificate(dir: string, name: string, options: CertificateOptions = {}): Promise<Pair> {
  const { hosts = [], by, authority = false, from, to } = options
  const altNames = hosts.map((host) =>
    isIP(host) ? { type: 7 as const, ip: host } : { type: 2 as const, value: host },
  )
  const made = await generate([{ name: 'commonName', value: name }], {
    keyType: 'ec',
    algorithm: 'sha256',
    extensions: [
      { name: 'basicConstraints', cA: authority },
      ...(altNames.length === 0 ? [] : [{ name: 'subjectAltName' as const, altNames }]),
    ],
    ...(by && { ca: by.pem }),
    ...(from && { notBeforeDate: from }),
    ...(to && { notAfterDate: to }),
  })
  const pair = {
    cert: join(dir, `${name}.pem`),
    key: join(dir, `${name}.key`),
    pem: { cert: made.cert, key: made.private },
  }
  await writeFile(pair.cert, made.cert)
  await writeFile(pair.key, made.private, { mode: 0o600 })
  return pair
}
