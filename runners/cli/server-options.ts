/** Options that say where the server of a run is, when it is not that of a run in `runs/`, and as whom to connect. */
import type { Command } from 'commander'
import { resolve } from 'node:path'
import type { Access } from '../../bus/nats/access.ts'
import { UsageError } from './fail.ts'

export interface AccessOptions {
  readonly creds?: string
  readonly tlsCa?: string
}

export interface ServerOptions extends AccessOptions {
  readonly nats?: string
}

/** Adds `--creds` and `--tls-ca`. */
export const withAccess = (command: Command): Command =>
  command
    .option('--creds <file>', 'who you are: nats/*.creds of the folder of the run, or a credentials file of NATS')
    .option('--tls-ca <file>', 'certificate of the authority that the server at tls://… has its own from')

/** Adds `--nats`, `--creds` and `--tls-ca`. */
export const withServer = (command: Command): Command =>
  withAccess(command.option('--nats <url>', 'NATS server of the run; its own one if left out'))

export async function accessAt(url: string, { creds, tlsCa }: AccessOptions): Promise<Access> {
  const { accessWith } = await import('../../bus/nats/access.ts')
  return accessWith(url, { creds: creds && resolve(creds), ca: tlsCa && resolve(tlsCa) })
}

/** Undefined without `--nats`. */
export function accessOf({ nats, ...files }: ServerOptions): Promise<Access | undefined> {
  if (nats !== undefined) return accessAt(nats, files)
  const given = files.creds !== undefined ? '--creds' : files.tlsCa !== undefined ? '--tls-ca' : null
  if (given !== null) throw new UsageError(`${given} needs --nats; for a run of this machine, name the run alone`)
  return Promise.resolve(undefined)
}
