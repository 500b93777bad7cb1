/** Who one is, in every form that a server may ask for: keys of a run, and what a user's own server knows. */
import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { mkdir, mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { encodeAccount, encodeOperator, encodeUser, fmtCreds } from '@nats-io/jwt'
import { nkeys } from '@nats-io/nats-core'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { accessTo, accessWith, type Access } from '../bus/nats/access.ts'
import { connectNats } from '../bus/nats/connect.ts'
import { credentialsFile } from '../bus/nats/credentials.ts'
import { findServer } from '../bus/nats/find-server.ts'
import { connectNet } from '../bus/nats/net.ts'
import { BUS_ROLES } from '../bus/nats/roles.ts'
import { startServer } from '../bus/nats/server.ts'
import { loadConfig } from '../configs/load.ts'
import { invitation } from '../runners/evolve/invitation.ts'
import { program } from './support/program.ts'
import { SMALL } from './support/small-run.ts'
import type { EvolveEvent } from '../runners/cli/events.ts'

let dir: string
const children: ChildProcess[] = []
beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'visplay-credentials-'))
})
afterAll(async () => {
  for (const child of children) {
    child.kill()
    await once(child, 'exit')
  }
  await rm(dir, { recursive: true, force: true })
})

/** A server of the user's; its host and port. */
async function ownServer(name: string, lines: readonly string[]): Promise<string> {
  const folder = join(dir, name)
  await mkdir(folder)
  const config = join(folder, 'nats.conf')
  const common = ['host: "127.0.0.1"', 'port: -1', `jetstream { store_dir: ${JSON.stringify(folder)} }`]
  await writeFile(config, [...common, ...lines, ''].join('\n'))
  const child = spawn((await findServer()).path, ['-c', config], { stdio: ['ignore', 'ignore', 'pipe'] })
  children.push(child)
  let said = ''
  child.stderr.on('data', (text: Buffer) => (said += text.toString()))
  await expect.poll(() => said, { timeout: 20_000 }).toMatch(/Server is ready/)
  return /client connections on (127\.0\.0\.1:\d+)/.exec(said)![1]!
}

/** A run can be made there, worked on and read. */
async function works(access: Access): Promise<void> {
  const net = await connectNet(access, 'mine')
  const bus = net.connect('judge.1')
  const id = `d${Math.random()}`.replace('.', '-')
  await bus.append('dropped', id, { step: 1, group: 'g', reason: 'r' })
  expect(await bus.find('dropped', id)).not.toBeNull()
  await net.close()
}

describe("a user's own server", () => {
  const PASSWORD = 'tr0ub4dor&3 /x'

  test('with a password: a run there works, and nothing that others may see holds it', async () => {
    const host = await ownServer('password', [
      `authorization { user: ada, password: ${JSON.stringify(PASSWORD)}, timeout: 10 }`,
    ])
    const url = `nats://ada:${encodeURIComponent(PASSWORD)}@${host}`
    const out = join(dir, 'run')
    const args = ['--nats', url, '--run', 'mine', '--steps', '2', '--out', out, ...SMALL]
    const { code, stdout, stderr } = await program(['evolve', '--json', ...args])
    expect(code, stderr).toBe(0)
    const events = stdout.trim().split('\n')
    const invited = events.map((line) => JSON.parse(line) as EvolveEvent).find((e) => e.event === 'join')
    expect(invited).toEqual({
      event: 'join',
      command: `npx visplay join nats://USER:PASSWORD@${host} --run mine`,
      files: [],
    })
    const net = await connectNet(accessTo(url), 'mine')
    const config = JSON.stringify(await net.connect('tap.1').getValue('config'))
    await net.close()
    expect(config).toContain(`nats://${host}`)
    const report = await readFile(join(out, 'report.html'), 'utf8')
    const log = await readFile(join(out, 'visplay.log'), 'utf8')
    expect(report).toContain(host)
    for (const text of [stdout, stderr, config, report, log]) {
      expect(text).not.toContain(encodeURIComponent(PASSWORD))
      expect(text).not.toContain('tr0ub4dor')
    }
    // It is needed to go on with the run.
    expect((await stat(join(out, 'config.yaml'))).mode & 0o077).toBe(0)
    const tapped = await program(['tap', '--run', out, '--since', 'start', 'log.step.*', '--json'])
    expect([tapped.code, tapped.stdout.trim().split('\n').length]).toEqual([0, 2])
    const gone = await program(['tap', '--nats', url, '--run', 'gone'])
    expect([gone.code, gone.stderr]).toEqual([1, `visplay: the NATS server at nats://${host} has no run "gone"\n`])
    const wrong = await program(['join', `nats://ada:wr0ng@${host}`])
    expect([wrong.code, wrong.stderr]).toEqual([1, expect.stringContaining(`server at nats://${host} refuses`)])
    expect(wrong.stderr).not.toContain('wr0ng')
  })

  test('with a token', async () => {
    const host = await ownServer('token', ['authorization { token: "s3cret", timeout: 10 }'])
    await works(accessTo(`nats://s3cret@${host}`))
    await expect(connectNats({ access: accessTo(`nats://other@${host}`), name: 'test' })).rejects.toThrow(/refuses/)
  })

  test('with JWTs: by a credentials file of NATS', async () => {
    const [operator, account, system, user] = [
      nkeys.createOperator(),
      nkeys.createAccount(),
      nkeys.createAccount(),
      nkeys.createUser(),
    ]
    const stored = { mem_storage: -1, disk_storage: -1, streams: -1, consumer: -1 }
    const limits = { ...stored, conn: -1, subs: -1, data: -1, payload: -1, imports: -1, exports: -1, wildcards: true }
    const ours = await encodeAccount('A', account, { limits }, { signer: operator })
    const host = await ownServer('jwt', [
      `operator: ${await encodeOperator('O', operator, { system_account: system.getPublicKey() })}`,
      'resolver: MEMORY',
      'resolver_preload: {',
      `  ${account.getPublicKey()}: ${ours}`,
      `  ${system.getPublicKey()}: ${await encodeAccount('SYS', system, {}, { signer: operator })}`,
      '}',
    ])
    const creds = join(dir, 'ada.creds')
    await writeFile(creds, fmtCreds(await encodeUser('ada', user, account), user))
    const access = await accessWith(`nats://${host}`, { creds })
    await works(access)
    const config = loadConfig({ sets: [`bus.nats=nats://${host}`, `bus.creds=${creds}`] })
    // Everybody has their own.
    expect(invitation({ ...config, run: 'mine', out: dir }, access, null)).toEqual({
      command: `npx visplay join nats://${host} --run mine --creds FILE`,
      files: [],
    })
    const read = await program([
      'tap',
      '--nats',
      `nats://${host}`,
      '--creds',
      creds,
      '--run',
      'mine',
      '--since',
      'start',
    ])
    expect([read.code, read.stdout]).toEqual([0, expect.stringContaining('dropped')])
    await writeFile(creds, (await readFile(creds, 'utf8')).replace(/^SU\w{8}/m, 'SUAAAAAAAA'))
    await expect(accessWith(`nats://${host}`, { creds })).rejects.toThrow(/ada\.creds is damaged/)
  })
})

describe('files of roles', () => {
  test('passwords of an earlier release become keys when the server starts, and it says so', async () => {
    const storeDir = join(dir, 'old')
    await mkdir(storeDir)
    const old = (role: string) => `${role}:${'0123456789abcdef'.repeat(2)}\n`
    for (const role of BUS_ROLES) await writeFile(credentialsFile(storeDir, role), old(role))
    const copied = join(dir, 'copied.creds')
    await writeFile(copied, old('worker'))
    const notes: string[] = []
    const server = await startServer({ storeDir, run: 'mine', onNote: (note) => notes.push(note) })
    expect(notes).toEqual([expect.stringMatching(/passwords of this run are now keys: .*needs the new files/)])
    await works(server.access)
    await expect(accessWith(server.url, { creds: copied })).rejects.toThrow(
      /copied\.creds holds a password of an earlier release: resume the run with this one.*copy/,
    )
    const file = credentialsFile(storeDir, 'worker')
    const before = await readFile(file, 'utf8')
    expect((await stat(file)).mode & 0o077).toBe(0)
    await server.stop()
    // The second time they are what they are, so that who joined can come back.
    const again = await startServer({ storeDir, run: 'mine', onNote: (note) => notes.push(note) })
    expect([notes.length, await readFile(file, 'utf8')]).toEqual([1, before])
    await again.stop()
    // A file that is deleted makes its key void.
    await writeFile(copied, before)
    await rm(file)
    const changed = await startServer({ storeDir, run: 'mine' })
    const gone = await accessWith(changed.url, { creds: copied })
    await expect(connectNats({ access: gone, name: 'test' })).rejects.toThrow(/refuses/)
    const fresh = await accessWith(changed.url, { creds: file })
    await (await connectNats({ access: fresh, name: 'test' })).close()
    await changed.stop()
  })

  test('what is none is named, and its content is not shown', async () => {
    const file = join(dir, 'odd.creds')
    const seed = Buffer.from(nkeys.createUser().getSeed()).toString()
    const damaged = seed.replace(/.$/, (last) => (last === 'A' ? 'E' : 'A'))
    const wrong = [`king:${seed}`, `worker:${seed.slice(1)}`, 'nonsense', '', `tap:${damaged}`, seed]
    for (const text of wrong) {
      await writeFile(file, text)
      const error = await accessWith('nats://localhost:1', { creds: file }).catch((e: unknown) => e as Error)
      expect((error as Error).name, text).toBe('NatsServerError')
      expect((error as Error).message).toMatch(/odd\.creds (?:holds no credentials|is damaged)/)
      expect((error as Error).message).not.toContain(seed.slice(1, -1))
    }
    await writeFile(file, `tap:${seed}`)
    expect((await accessWith('nats://localhost:1', { creds: file })).user).toBe('tap')
  })

  test('an address that is none is one line without what it may hold', async () => {
    for (const address of ['host:4222', 'ada:s3cret@host', 'http://s3cret@host', 'nats://', '']) {
      const { code, stderr } = await program(['join', address])
      expect([code, stderr]).toEqual([1, expect.stringContaining('nats://host:4222 or tls://host:4222')])
      expect(stderr).not.toContain('s3cret')
    }
    const refused = await program(['evolve', '--nats', 'http://ada:s3cret@host'])
    expect([refused.code, refused.stderr]).toEqual([2, expect.stringContaining('bus.nats')])
    expect(refused.stderr).not.toContain('s3cret')
    const alone = await program(['tap', '--creds', 'x'])
    expect([alone.code, alone.stderr]).toEqual([2, expect.stringContaining('--creds needs --nats')])
  })
})
