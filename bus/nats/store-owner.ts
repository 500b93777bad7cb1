/** One server per store: ends one that outlived its program, and refuses a store that another program is using. */
import { execFile } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync } from 'node:fs'
import { readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { connect } from 'node:net'
import { join, resolve } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { promisify } from 'node:util'
import { accessTo, identityIn, isTls, type Access } from './access.ts'
import { blobFolder } from './blob-files.ts'
import { readCertificates } from './certificates.ts'
import { credentialsFile } from './credentials.ts'
import type { BusRole } from './roles.ts'
import { NatsServerError } from './server-version.ts'

/** A server tells its name to whoever connects, so a server of this store can be told from any other. */
export const serverName = (storeDir: string): string =>
  `visplay-${createHash('sha256').update(resolve(storeDir)).digest('hex').slice(0, 16)}`

export const configFile = (storeDir: string): string => join(storeDir, 'nats.conf')
export const pidFile = (storeDir: string): string => join(storeDir, 'nats.pid')
/** Copies of what a server that speaks TLS was given, so that all that others need is in one folder. */
export const certificateFile = (storeDir: string): string => join(storeDir, 'cert.pem')
export const caFile = (storeDir: string): string => join(storeDir, 'ca.pem')
const ownerFile = (storeDir: string) => join(storeDir, 'owner.pid')

/** The address for this machine, from the file that the server writes once it is ready for connections; null before. */
export async function listeningUrl(storeDir: string): Promise<string | null> {
  const files = await readdir(storeDir)
  const file = files.find((name) => name.endsWith('.ports'))
  const text = file === undefined ? '' : await readFile(join(storeDir, file), 'utf8')
  return (text.trimEnd().endsWith('}') && /(?:nats|tls):\/\/[^"]+/.exec(text)?.[0]) || null
}

/**
 * How a process of this machine connects to the server of the store as `role`: with the key of the role unless the server
 * is open, and trusting exactly the certificate that the server was given.
 */
export async function localAccess(storeDir: string, url: string, role: BusRole): Promise<Access> {
  const file = credentialsFile(storeDir, role)
  const folder = blobFolder(storeDir)
  const blobs = existsSync(folder) ? folder : null
  const access = { ...accessTo(url), ...(existsSync(file) && (await identityIn(file))), blobs }
  if (!isTls(url)) return access
  const { first } = await readCertificates(certificateFile(storeDir))
  const ca = existsSync(caFile(storeDir)) ? (await readCertificates(caFile(storeDir))).pem : null
  return { ...access, trust: { ca, pinned: first.raw } }
}

/** Makes this process the owner of the store. Throws NatsServerError while another process is. */
export async function claimStore(storeDir: string): Promise<void> {
  // A server whose program was killed ends by itself within moments; two on one store would destroy it.
  for (let waited = 0; ; waited += 100) {
    const server = await serverProcess(storeDir)
    if (server === null && (await servedAt(storeDir)) === null) break
    const owner = await pidIn(ownerFile(storeDir))
    if (owner !== null && alive(owner)) {
      throw new NatsServerError(
        `${storeDir} is in use: process ${owner} runs a NATS server on it; stop that process, or use its server`,
      )
    }
    if (waited >= 2000 && server !== null) process.kill(server, 'SIGKILL')
    await sleep(100)
  }
  for (const name of await readdir(storeDir)) if (name.endsWith('.ports')) await rm(join(storeDir, name))
  await writeFile(ownerFile(storeDir), String(process.pid))
}

/** The process that runs, or is just ending, a server on this store: it has the store's configuration in its arguments. */
async function serverProcess(storeDir: string): Promise<number | null> {
  const pid = await pidIn(pidFile(storeDir))
  if (pid === null || !alive(pid)) return null
  return (await argumentsOf(pid)).includes(configFile(storeDir)) ? pid : null
}

/** Empty where the system does not tell. */
async function argumentsOf(pid: number): Promise<string> {
  try {
    return await readFile(`/proc/${pid}/cmdline`, 'utf8')
  } catch {
    const asked = await promisify(execFile)('ps', ['-o', 'args=', '-p', String(pid)]).catch(() => null)
    return asked?.stdout ?? ''
  }
}

/** Address of the server that runs on this store; null when none does. */
async function servedAt(storeDir: string): Promise<string | null> {
  const url = await listeningUrl(storeDir)
  if (url === null) return null
  const { hostname, port } = new URL(url)
  const socket = connect({ host: hostname.replaceAll(/[[\]]/g, ''), port: Number(port) })
  socket.setTimeout(2000, () => socket.destroy())
  const greeting = await new Promise<string>((resolve) => {
    socket.once('data', (data: Buffer) => resolve(data.toString('utf8')))
    // Refused, silent, or closed by a server that is ending.
    socket.once('close', () => resolve(''))
    socket.once('error', () => resolve(''))
  })
  socket.destroy()
  return greeting.includes(`"${serverName(storeDir)}"`) ? url : null
}

/** The server of this store while the process that owns it lives; null when none does, or only for moments more. */
export async function ownedServer(storeDir: string, role: BusRole): Promise<Access | null> {
  const owner = await pidIn(ownerFile(storeDir))
  const url = owner !== null && alive(owner) ? await servedAt(storeDir) : null
  return url === null ? null : localAccess(storeDir, url, role)
}

async function pidIn(file: string): Promise<number | null> {
  try {
    return Number.parseInt(await readFile(file, 'utf8'), 10) || null
  } catch {
    return null
  }
}

function alive(pid: number): boolean {
  try {
    process.kill(pid, 0)
    return true
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM'
  }
}
