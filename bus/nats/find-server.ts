/** Finds a NATS server that is new enough, or installs one into the user's cache. */
import { execFile } from 'node:child_process'
import { access, constants } from 'node:fs/promises'
import { homedir } from 'node:os'
import { delimiter, join } from 'node:path'
import { promisify } from 'node:util'
import { binaryName, goInstaller, pipInstaller, releaseInstaller, type Installer } from './install-server.ts'
import { INSTALLED_VERSION, NatsServerError, refusal } from './server-version.ts'

const run = promisify(execFile)

export interface FoundServer {
  readonly path: string
  readonly version: string
  /** Where it was found, for `doctor` and logs. */
  readonly source: 'NATS_SERVER_BIN' | 'PATH' | 'cache' | 'installed'
}

export interface FindOptions {
  readonly env?: NodeJS.ProcessEnv
  readonly installers?: readonly Installer[]
  /** Told what a person may want to know: a server passed over, an installation begun. */
  readonly onNote?: (note: string) => void
}

/**
 * `$NATS_SERVER_BIN`, else `nats-server` on the PATH if new enough, else the cached copy, else what an installer
 * brings. Throws NatsServerError with every way that was tried.
 */
export async function findServer(options: FindOptions = {}): Promise<FoundServer> {
  const { env = process.env, onNote = () => {} } = options
  const chosen = env['NATS_SERVER_BIN']
  if (chosen) return usable(chosen, 'NATS_SERVER_BIN')
  const tried: string[] = []
  const cached = cachePath(env)
  for (const [path, source] of [
    [await onPath(env), 'PATH'],
    [await executable(cached), 'cache'],
  ] as const) {
    if (path === null) continue
    try {
      return await usable(path, source)
    } catch (error) {
      tried.push((error as Error).message)
      onNote((error as Error).message)
    }
  }
  for (const installer of options.installers ?? [pipInstaller, goInstaller, releaseInstaller()]) {
    try {
      onNote(`installing nats-server ${INSTALLED_VERSION}: ${installer.name}`)
      await installer.install(cached, env)
      return await usable(cached, 'installed')
    } catch (error) {
      tried.push(`${installer.name}: ${firstLine(error)}`)
    }
  }
  throw new NatsServerError(
    'no usable NATS server: set NATS_SERVER_BIN to a nats-server 2.11 or newer, put one on the PATH, give the URL of ' +
      `a running one, or make one of these work (tried: ${tried.join('; ')})`,
  )
}

/** Where an installed server is kept. */
export function cachePath(env: NodeJS.ProcessEnv): string {
  const cache = env['XDG_CACHE_HOME'] || join(env['HOME'] || homedir(), '.cache')
  return join(cache, 'visplay', `nats-server-${INSTALLED_VERSION}`, binaryName)
}

async function usable(path: string, source: FoundServer['source']): Promise<FoundServer> {
  const where = source === 'NATS_SERVER_BIN' ? `NATS_SERVER_BIN=${path}` : path
  let version: string
  try {
    const { stdout } = await run(path, ['--version'], { timeout: 20_000 })
    version = /v?(\d+\.\d+\.\d+\S*)/.exec(stdout)?.[1] ?? stdout.trim()
  } catch (cause) {
    throw new NatsServerError(`${where} does not run (${firstLine(cause)}): point it at a nats-server binary`, {
      cause,
    })
  }
  const reason = refusal(version)
  if (reason !== null) throw new NatsServerError(`${where} is refused: ${reason}; use version 2.11 or newer`)
  return { path, version, source }
}

async function onPath(env: NodeJS.ProcessEnv): Promise<string | null> {
  for (const folder of (env['PATH'] ?? '').split(delimiter)) {
    const path = folder && (await executable(join(folder, binaryName)))
    if (path) return path
  }
  return null
}

async function executable(path: string): Promise<string | null> {
  try {
    await access(path, constants.X_OK)
    return path
  } catch {
    return null
  }
}

const firstLine = (error: unknown): string => {
  const { stderr, message } = error as Error & { stderr?: string }
  return (stderr?.trim().split('\n').at(-1) || message).split('\n')[0]!
}
