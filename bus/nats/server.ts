/** A NATS server as a child process that ends with this one. */
import { spawn, type ChildProcess } from 'node:child_process'
import { copyFile, mkdir, open, readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Access } from './access.ts'
import type { ServerTls } from './certificates.ts'
import { forgetCredentials, makeCredentials, type PublicKeys } from './credentials.ts'
import { findServer, type FindOptions } from './find-server.ts'
import { BUS_ROLES, permissionsOf } from './roles.ts'
import { NatsServerError } from './server-version.ts'
import {
  caFile,
  certificateFile,
  claimStore,
  configFile,
  listeningUrl,
  localAccess,
  pidFile,
  serverName,
} from './store-owner.ts'

export interface StartOptions extends FindOptions {
  /** Folder of the streams, the configuration and the log of the server; made if missing. */
  readonly storeDir: string
  /** A free one when left out. */
  readonly port?: number
  /** Where it listens: this machine alone if left out. */
  readonly host?: string
  /** Closed to all but the roles of this run, whose keys are in `storeDir`; open to everybody if left out. */
  readonly run?: string
  /** Speaks TLS 1.2 or newer only; readable on its way if left out. */
  readonly tls?: ServerTls
  /**
   * When data goes from the operating system to the disk. Either way an acknowledged message survives the death of every
   * process. `interval` (default): a power failure costs up to the last 250 ms, of which a resumed run recomputes what is
   * missing. `always`: not even that, at one fsync per message, about a tenth of the throughput.
   */
  readonly sync?: 'interval' | 'always'
}

export interface NatsServer {
  /** For this machine, as the owner. */
  readonly access: Access
  /** `nats://host:port` or `tls://host:port` for this machine. */
  readonly url: string
  readonly port: number
  readonly pid: number
  readonly version: string
  readonly logFile: string
  /** Resolves when the server has ended, wanted or not. */
  readonly exited: Promise<void>
  /** Ends it in order; resolves when it is gone. */
  stop(): Promise<void>
}

/** Recovering a large store takes a while. */
const READY_MS = 60_000

/**
 * The shell's standard input is a pipe from this process: it ends when this process ends, however that happens, and
 * then the server ends too. The server gets no signal of the terminal, so that Ctrl-C stops the actors before it.
 */
const GUARD = `
exec 3<&0
"$0" -c "$1" </dev/null 3<&- &
server=$!
(while read -r _ <&3; do :; done; kill "$server") &
guard=$!
exec 3<&-
wait "$server"
code=$?
kill "$guard" 2>/dev/null
exit "$code"
`

/** The server's heap is small: collected at four times its size instead of two, it costs less time and some memory. */
const MEMORY = { GOGC: '300', GOMEMLIMIT: '1GiB' }

/** Starts a server on `storeDir`; throws NatsServerError in one line that says what to do. */
export async function startServer(options: StartOptions): Promise<NatsServer> {
  const { storeDir, port = -1, host = '127.0.0.1', sync = 'interval', run, tls } = options
  const { path, version } = await findServer(options)
  await mkdir(storeDir, { recursive: true })
  await claimStore(storeDir)
  const config = configFile(storeDir)
  const logFile = join(storeDir, 'nats.log')
  if (run === undefined) await forgetCredentials(storeDir)
  const users =
    run === undefined ? [] : authorization(run, await makeCredentials(storeDir, options.onNote ?? (() => {})))
  const lines = [...users, ...(tls ? await encryption(storeDir, tls) : [])]
  await writeFile(config, configuration({ storeDir, host, port, sync, lines }), { mode: 0o600 })
  const log = await open(logFile, 'a')
  const logStart = (await log.stat()).size
  const env = { ...MEMORY, ...process.env }
  const child =
    process.platform === 'win32'
      ? spawn(path, ['-c', config], { env, stdio: ['ignore', log.fd, log.fd] })
      : spawn('sh', ['-c', GUARD, path, config], { env, stdio: ['pipe', log.fd, log.fd], detached: true })
  const exited = new Promise<void>((resolve) => child.once('exit', () => resolve()).once('error', () => resolve()))
  await log.close()
  const url = await ready(storeDir, child).catch(async (cause: unknown) => {
    await stop(child, exited, null)
    throw await explain(logFile, logStart, host, port, cause)
  })
  const pid = Number(await readFile(pidFile(storeDir), 'utf8'))
  // The pipe and the child must not keep a finished program alive.
  child.unref()
  const access = await localAccess(storeDir, url, 'owner')
  return {
    access,
    url,
    port: Number(new URL(url).port),
    pid,
    version,
    logFile,
    exited,
    stop: () => stop(child, exited, pid),
  }
}

/**
 * A client that stops reading is cut off after `write_deadline` instead of slowing the others; one that answers no ping
 * is gone, and what was asked for in its name goes to others.
 */
function configuration({
  storeDir,
  host,
  port,
  sync,
  lines,
}: Required<Pick<StartOptions, 'storeDir' | 'host' | 'port' | 'sync'>> & {
  readonly lines: readonly string[]
}): string {
  return [
    ...lines,
    `server_name: ${serverName(storeDir)}`,
    `host: ${JSON.stringify(host)}`,
    `port: ${port}`,
    `pid_file: ${JSON.stringify(pidFile(storeDir))}`,
    `ports_file_dir: ${JSON.stringify(storeDir)}`,
    'max_payload: 1MB',
    'write_deadline: "2s"',
    'ping_interval: "5s"',
    'ping_max: 2',
    'no_fast_producer_stall: true',
    'jetstream {',
    `  store_dir: ${JSON.stringify(storeDir)}`,
    `  sync_interval: ${sync === 'always' ? 'always' : '250ms'}`,
    '}',
    '',
  ].join('\n')
}

/** Users are roles, by their public keys. */
function authorization(run: string, keys: PublicKeys): string[] {
  const users = BUS_ROLES.map((role) => {
    const permissions = permissionsOf(role, run)
    return JSON.stringify({ nkey: keys[role], ...(permissions && { permissions }) })
  })
  return [`authorization { users: [${users.join(', ')}] }`]
}

/** Keeps beside the streams what those who connect must trust. */
async function encryption(storeDir: string, { cert, key, pem, ca }: ServerTls): Promise<string[]> {
  await writeFile(certificateFile(storeDir), pem)
  if (ca === null) await rm(caFile(storeDir), { force: true })
  else await copyFile(ca, caFile(storeDir))
  const files = `cert_file: ${JSON.stringify(cert)}, key_file: ${JSON.stringify(key)}`
  return [`tls { ${files}, min_version: "1.2", timeout: 10 }`]
}

async function ready(storeDir: string, child: ChildProcess): Promise<string> {
  const deadline = Date.now() + READY_MS
  while (Date.now() < deadline) {
    if (child.exitCode !== null || child.signalCode !== null) throw new Error('it ended at once')
    const url = await listeningUrl(storeDir)
    if (url !== null) return url
    await sleep(10)
  }
  throw new Error(`it was not ready within ${READY_MS / 1000} s`)
}

async function explain(logFile: string, from: number, host: string, port: number, cause: unknown): Promise<Error> {
  const log = (await readFile(logFile)).subarray(from).toString('utf8')
  if (/address already in use|Only one usage of each socket address/.test(log)) {
    return new NatsServerError(
      `port ${port} on ${host} is busy: another program listens there; choose another port, or leave it out to get ` +
        'a free one',
      { cause },
    )
  }
  const fatal = /\[FTL\] (.*)/.exec(log)?.[1] ?? log.trim().split('\n').at(-1) ?? ''
  return new NatsServerError(`nats-server did not start: ${(cause as Error).message}: ${fatal} (see ${logFile})`, {
    cause,
  })
}

async function stop(child: ChildProcess, exited: Promise<void>, pid: number | null): Promise<void> {
  // Nothing else may keep the program alive until the server has ended.
  child.ref()
  if (child.stdin) child.stdin.end()
  else child.kill()
  const gone = await Promise.race([exited.then(() => true), sleep(10_000, false, { ref: false })])
  if (gone) return
  if (pid !== null) process.kill(pid, 'SIGKILL')
  child.kill('SIGKILL')
  await exited
}
