/** Encryption: a server with a certificate lets in who trusts it, and says to everybody else what is wrong. */
import { X509Certificate } from 'node:crypto'
import { copyFile, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { createServer, connect as connectSocket, type AddressInfo, type Server } from 'node:net'
import { once } from 'node:events'
import { tmpdir } from 'node:os'
import { basename, join } from 'node:path'
import { connect as connectTls } from 'node:tls'
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest'
import { accessTo, accessWith } from '../bus/nats/access.ts'
import { readServerTls, type ServerTls } from '../bus/nats/certificates.ts'
import { connectNats } from '../bus/nats/connect.ts'
import { connectNet } from '../bus/nats/net.ts'
import { startServer, type NatsServer, type StartOptions } from '../bus/nats/server.ts'
import { ownedServer } from '../bus/nats/store-owner.ts'
import type { EvolveEvent } from '../runners/cli/events.ts'
import type { JoinEvent } from '../runners/join/join.ts'
import { makeCertificate, type Pair } from './support/certificates.ts'
import { program, startProgram, type Program } from './support/program.ts'
import { SMALL } from './support/small-run.ts'

let dir: string
let authority: Pair
let stranger: Pair
/** For this machine under its usual names. */
let good: Pair
const servers: NatsServer[] = []
const programs: Program[] = []

function started(running: Program): Program {
  programs.push(running)
  return running
}

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'visplay-tls-'))
  authority = await makeCertificate(dir, 'authority', { authority: true })
  stranger = await makeCertificate(dir, 'stranger', { authority: true })
  good = await makeCertificate(dir, 'good', { hosts: ['localhost', '127.0.0.1'], by: authority })
})
afterAll(async () => {
  for (const running of programs) {
    running.kill('SIGKILL')
    await running.ended
  }
  await Promise.all(servers.map((server) => server.stop()))
  await rm(dir, { recursive: true, force: true, maxRetries: 20 })
})

const tlsOf = (pair: Pair, ca: Pair | null = authority): Promise<ServerTls> =>
  readServerTls({ cert: pair.cert, key: pair.key, ca: ca && ca.cert })

async function serve(name: string, options: Partial<StartOptions>): Promise<NatsServer> {
  const server = await startServer({ storeDir: join(dir, `nats-${name}`), run: 'secret', ...options })
  servers.push(server)
  return server
}

/** The error of connecting as a worker. */
async function refusal(server: NatsServer, url: string, ca?: Pair): Promise<string> {
  const creds = join(server.logFile, '..', 'worker.creds')
  const access = await accessWith(url.replace('PORT', String(server.port)), { creds, ca: ca?.cert })
  const error = await connectNats({ access, name: 'test' }).then(
    (connection) => connection.close().then(() => null),
    (e: unknown) => e as Error,
  )
  expect(error?.name ?? 'let in').toBe('NatsServerError')
  expect(error!.message.split('\n')).toHaveLength(1)
  return error!.message
}

describe('a server with a certificate', () => {
  let server: NatsServer
  beforeAll(async () => {
    server = await serve('good', { tls: await tlsOf(good) })
  })

  test('lets in who trusts its authority, by any name that the certificate holds', async () => {
    expect(server.url).toBe(`tls://127.0.0.1:${server.port}`)
    for (const host of ['localhost', '127.0.0.1']) {
      const creds = join(dir, 'nats-good', 'owner.creds')
      const access = await accessWith(`tls://${host}:${server.port}`, { creds, ca: authority.cert })
      const net = await connectNet(access, 'secret')
      await net.connect('evolve.main').putValue('config', { host })
      await net.close()
    }
  })

  test('says nothing readable but its greeting, and speaks nothing older than TLS 1.2', async () => {
    const socket = connectSocket(server.port, '127.0.0.1')
    let said = ''
    socket.on('data', (data: Buffer) => (said += data.toString('latin1')))
    const closed = once(socket, 'close')
    await vi.waitFor(() => expect(said).toMatch(/^INFO .*"tls_required":true.*\r\n$/))
    socket.write('CONNECT {}\r\nPING\r\n')
    await closed
    expect(said).not.toContain('PONG')
    const old = connectSocket(server.port, '127.0.0.1')
    await once(old, 'data')
    // A client that would.
    const ciphers = 'DEFAULT@SECLEVEL=0'
    const ca = authority.pem.cert
    const hello = connectTls({ socket: old, ca, maxVersion: 'TLSv1.1', minVersion: 'TLSv1', ciphers })
    const [error] = (await once(hello, 'error')) as [NodeJS.ErrnoException]
    expect(error.code).toBe('ERR_SSL_TLSV1_ALERT_PROTOCOL_VERSION')
  })

  test.each([
    ['no authority that is known', 'tls://127.0.0.1:PORT', null, /is not trusted \(.*\): .*--tls-ca FILE/],
    ['another authority', 'tls://localhost:PORT', 'stranger', /is not trusted \(.*\): .*what --tls-ca names/],
    ['no TLS', 'nats://127.0.0.1:PORT', null, /speaks TLS: write tls:\/\/ for it, with --tls-ca/],
  ] as const)('refuses %s', async (_, url, ca, reason) => {
    expect(await refusal(server, url, ca ? stranger : undefined)).toMatch(reason)
  })

  test('a process of this machine trusts exactly the certificate that the server was given', async () => {
    const access = (await ownedServer(join(dir, 'nats-good'), 'tap'))!
    expect([access.url, access.user]).toEqual([server.url, 'tap'])
    await (await connectNats({ access, name: 'test' })).close()
    const other = await makeCertificate(dir, 'good-too', { hosts: ['localhost', '127.0.0.1'], by: authority })
    const pinned = new X509Certificate(other.pem.cert).raw
    const wrong = { ...access, trust: { ca: authority.pem.cert, pinned } }
    await expect(connectNats({ access: wrong, name: 'test' })).rejects.toThrow(/not the certificate of this run/)
  })

  test('comes back after its death, and who was connected goes on', async () => {
    const creds = join(dir, 'nats-good', 'owner.creds')
    const access = await accessWith(`tls://localhost:${server.port}`, { creds, ca: authority.cert })
    const net = await connectNet(access, 'secret')
    const bus = net.connect('judge.1')
    await bus.append('dropped', 'before', { step: 1, group: 'g', reason: 'r' })
    process.kill(server.pid, 'SIGKILL')
    await server.exited
    const again = await serve('good', { tls: await tlsOf(good), port: server.port })
    await bus.append('dropped', 'after', { step: 1, group: 'g', reason: 'r' })
    expect(await bus.find('dropped', 'before')).not.toBeNull()
    await net.close()
    await again.stop()
  })
})

test('a certificate for another host is refused, also one for "localhost" under an address', async () => {
  const elsewhere = await makeCertificate(dir, 'elsewhere', { hosts: ['elsewhere.test', '192.0.2.7'], by: authority })
  const named = await serve('elsewhere', { tls: await tlsOf(elsewhere) })
  for (const [host, held] of [
    ['127.0.0.1', '192.0.2.7'],
    ['localhost', 'elsewhere.test'],
  ]) {
    const said = await refusal(named, `tls://${host}:PORT`, authority)
    expect(said).toContain('is for another host')
    expect(said).toContain(held)
  }
  // The run itself is not concerned: it knows the certificate.
  await (await connectNats({ access: named.access, name: 'test' })).close()
  const local = await makeCertificate(dir, 'local', { hosts: ['localhost'], by: authority })
  const server = await serve('local', { tls: await tlsOf(local) })
  expect(await refusal(server, 'tls://127.0.0.1:PORT', authority)).toMatch(/is for another host/)
})

test('a certificate that signs itself is its own authority', async () => {
  const self = await makeCertificate(dir, 'self', { hosts: ['localhost'] })
  const server = await serve('self', { tls: await tlsOf(self, null) })
  const creds = join(dir, 'nats-self', 'tap.creds')
  const ca = join(dir, 'nats-self', 'ca.pem')
  expect(await readFile(ca, 'utf8')).toBe(self.pem.cert)
  const access = await accessWith(`tls://localhost:${server.port}`, { creds, ca })
  await (await connectNats({ access, name: 'test' })).close()
  expect(await refusal(server, 'tls://localhost:PORT', stranger)).toMatch(/is not trusted/)
})

describe('times', () => {
  const day = 24 * 3600 * 1000
  const at = (days: number) => new Date(Date.now() + days * day)
  test.each([
    ['expired', -2, -1, /has expired on .*; renew it/, /has expired; its owner must renew it/],
    ['early', 1, 2, /is not valid before .*; check the clock/, /is not valid yet; check the clocks/],
  ] as const)(
    'a certificate that is %s is refused by whoever shows it and whoever sees it',
    async (name, from, to, own, seen) => {
      const pair = await makeCertificate(dir, name, { hosts: ['localhost'], by: authority, from: at(from), to: at(to) })
      await expect(tlsOf(pair)).rejects.toThrow(own)
      const { cert, key, pem } = { ...pair, pem: pair.pem.cert }
      const tls = { cert, key, pem, certificate: new X509Certificate(pem), ca: authority.cert }
      expect(await refusal(await serve(name, { tls }), 'tls://localhost:PORT', authority)).toMatch(seen)
    },
  )
})

describe('a server that speaks no TLS', () => {
  test('is refused by who wants it', async () => {
    const server = await serve('plain', {})
    expect(await refusal(server, 'tls://127.0.0.1:PORT', authority)).toMatch(/does not speak TLS: write nats:\/\//)
  })

  test('nor is one that only pretends to be a server', async () => {
    const silent: Server = createServer((socket) => socket.end('HTTP/1.1 400 Bad Request\r\n\r\n')).listen(
      0,
      '127.0.0.1',
    )
    await once(silent, 'listening')
    const access = accessTo(`tls://127.0.0.1:${(silent.address() as AddressInfo).port}`)
    await expect(connectNats({ access, name: 'test' })).rejects.toThrow(/no NATS server answers at tls:/)
    silent.close()
  })
})

describe('files', () => {
  test('each that is wrong is named in one line', async () => {
    const none = join(dir, 'none.pem')
    const text = join(dir, 'text.pem')
    const folder = join(dir, 'folder.pem')
    await Promise.all([writeFile(text, 'no PEM'), mkdir(folder)])
    const { cert, key } = good
    const locked = join(dir, 'locked.key')
    await writeFile(locked, '-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIIB\n-----END ENCRYPTED PRIVATE KEY-----\n')
    const ca = null
    for (const [files, reason] of [
      [{ cert: none, key, ca }, `the certificate ${none} does not exist`],
      [{ cert: folder, key, ca }, `the certificate ${folder} (EISDIR`],
      [{ cert: text, key, ca }, `${text} holds no certificate`],
      [{ cert: key, key, ca }, `${key} holds no certificate`],
      [{ cert, key: none, ca }, `the key ${none} does not exist`],
      [{ cert, key: text, ca }, `${text} holds no private key`],
      [{ cert, key: cert, ca }, `${cert} holds no private key`],
      [{ cert, key: locked, ca }, `${locked} is locked by a passphrase`],
      [{ cert, key: authority.key, ca }, `the key ${authority.key} does not belong to the certificate ${cert}`],
      [{ cert, key, ca: none }, `the certificate ${none} does not exist`],
    ] as const) {
      const error = await readServerTls(files).catch((e: unknown) => e as Error)
      expect([(error as Error).name, (error as Error).message.split('\n').length]).toEqual(['NatsServerError', 1])
      expect((error as Error).message).toContain(reason)
    }
    await expect(accessWith('tls://localhost:1', { ca: text })).rejects.toThrow(`${text} holds no certificate`)
    await expect(accessWith('nats://localhost:1', { ca: cert })).rejects.toThrow(/begins with tls:\/\//)
  })

  test.each([
    [['--tls-cert', 'CERT'], /--tls-cert and --tls-key belong together/],
    [['--tls-cert', 'CERT', '--tls-key', 'none.key'], /the key .*none\.key does not exist/],
    [['--tls-ca', 'CERT'], /--tls-ca needs --tls-cert/],
    [['--creds', 'CERT'], /--creds is for the server of --nats/],
    [['--nats', 'nats://127.0.0.1:1', '--tls-cert', 'CERT'], /are for the own server/],
  ])('evolve %s leaves nothing behind', async (args, reason) => {
    const out = join(dir, 'refused')
    const { code, stderr } = await program(['evolve', '--out', out, ...args.map((a) => (a === 'CERT' ? good.cert : a))])
    expect([code === 0, stderr.trim().split('\n').length]).toEqual([false, 1])
    expect(stderr).toMatch(reason)
    await expect(readFile(join(out, 'config.yaml'))).rejects.toThrow(/ENOENT/)
  })
})

test('a run over TLS: another machine joins it and listens to it, and it can be read when it has ended', async () => {
  const out = join(dir, 'run')
  const certificate = ['--tls-cert', good.cert, '--tls-key', good.key, '--tls-ca', authority.cert]
  const args = ['--run', 'encrypted', '--steps', '10', '--listen', '0.0.0.0', '--out', out, ...certificate, ...SMALL]
  const run = started(startProgram(['evolve', '--json', ...args]))
  await run.said('join')
  const invited = run.events().find((e): e is Extract<EvolveEvent, { event: 'join' }> => e.event === 'join')!
  // The certificate does not hold the name of this machine, so it is not printed.
  expect(invited.command).toMatch(
    /^npx visplay join tls:\/\/localhost:\d+ --run encrypted --creds worker\.creds --tls-ca ca\.pem$/,
  )
  expect(invited.files).toEqual([join(out, 'nats', 'worker.creds'), join(out, 'nats', 'ca.pem')])
  const there = join(dir, 'another-machine')
  await mkdir(there)
  for (const file of [...invited.files, join(out, 'nats', 'tap.creds')]) {
    await copyFile(file, join(there, basename(file)))
  }
  const [join_, url, ...rest] = invited.command.replace('npx visplay ', '').split(' ')
  run.kill('SIGSTOP')
  const env = { ...process.env, XDG_CACHE_HOME: join(dir, 'cache') }
  const actors = ['--actors', 'model=1,judge=1']
  const joining = started(startProgram([join_!, url!, ...rest, '--json', ...actors], { env, cwd: there }))
  const joined = () => (joining.events() as unknown as JoinEvent[]).some((e) => e.event === 'joined')
  await Promise.race([vi.waitFor(() => expect(joined()).toBe(true), 60_000), joining.ended])
  run.kill('SIGCONT')
  // Frozen again, so that it is still there to be heard.
  await run.said('step')
  run.kill('SIGSTOP')
  const listener = ['--nats', url!, '--creds', 'tap.creds', '--tls-ca', 'ca.pem']
  const versions = ['tap', '--json', '--run', 'encrypted', '--since', 'start', 'log.version.*']
  const heard = await program([...versions, ...listener], { cwd: there })
  expect([heard.code, heard.stderr]).toEqual([0, ''])
  expect(heard.stdout).toContain('visplay.encrypted.log.version')
  const untrusting = await program([...versions, ...listener.slice(0, -2)], { cwd: there })
  expect([untrusting.code, untrusting.stderr]).toEqual([1, expect.stringMatching(/^visplay: .*--tls-ca FILE\n$/)])
  const status = await program(['status', 'encrypted', '--json', ...listener], { cwd: there })
  expect([status.code, status.stderr]).toEqual([0, ''])
  const local = await program(['status', out, '--json'])
  expect([local.code, local.stderr]).toEqual([0, ''])
  run.kill('SIGCONT')
  const ended = await run.ended
  expect(ended.code, ended.stderr).toBe(0)
  const left = await joining.ended
  expect(left.code, left.stderr).toBe(0)
  expect(JSON.stringify(run.events())).not.toContain('can be read in the network')
  const replayed = await program(['replay', out, '--json'])
  expect(JSON.parse(replayed.stdout.trim().split('\n').at(-1)!)).toMatchObject({ ok: true, steps: 10 })
})
