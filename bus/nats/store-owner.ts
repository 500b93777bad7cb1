/** One server per store: ends one that outlived its program, and refuses a store that another program is using. */
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { connect } from 'node:net'
import { join, resolve } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { NatsServerError } from './server-version.ts'

/** A server tells its name to whoever connects, so a server of this store can be told from any other. */
export const serverName = (storeDir: string): string =>
  `visplay-${createHash('sha256').update(resolve(storeDir)).digest('hex').slice(0, 16)}`

export const pidFile = (storeDir: string): string => join(storeDir, 'nats.pid')
const ownerFile = (storeDir: string) => join(storeDir, 'owner.pid')

/** The address in the file that the server writes once it is ready for connections; null before. */
export async function listeningUrl(storeDir: string): Promise<string | null> {
  const file = (await readdir(storeDir)).find((name) => name.endsWith('.ports'))
  const text = file === undefined ? '' : await readFile(join(storeDir, file), 'utf8')
  return text.trimEnd().endsWith('}') ? (/nats:\/\/[^"]+/.exec(text)?.[0] ?? null) : null
}

/** Makes this process the owner of the store. Throws NatsServerError while another process is. */
export async function claimStore(storeDir: string): Promise<void> {
  // A server whose program was killed ends by itself within moments.
  for (let waited = 0; await isServed(storeDir); waited += 100) {
    const owner = await pidIn(ownerFile(storeDir))
    if (owner !== null && alive(owner)) {
      throw new NatsServerError(
        `${storeDir} is in use: process ${owner} runs a NATS server on it; stop that process, or use its server`,
      )
    }
    const server = await pidIn(pidFile(storeDir))
    if (waited >= 2000 && server !== null && alive(server)) process.kill(server, 'SIGKILL')
    await sleep(100)
  }
  for (const name of await readdir(storeDir)) if (name.endsWith('.ports')) await rm(join(storeDir, name))
  await writeFile(ownerFile(storeDir), String(process.pid))
}

async function isServed(storeDir: string): Promise<boolean> {
  const url = await listeningUrl(storeDir)
  if (url === null) return false
  const { hostname, port } = new URL(url)
  const socket = connect({ host: hostname, port: Number(port) })
  try {
    const [greeting] = (await once(socket, 'data', { signal: AbortSignal.timeout(2000) })) as [Buffer]
    return greeting.toString('utf8').includes(`"${serverName(storeDir)}"`)
  } catch {
    return false
  } finally {
    socket.destroy()
  }
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
