/** A run is closed: what each role may not do is refused by the server, and what comes in nevertheless does no harm. */
import { readFileSync } from 'node:fs'
import { mkdtemp, readFile, rm, stat } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { connect as connectSocket } from 'node:net'
import { join } from 'node:path'
import { inspect } from 'node:util'
import { jetstream } from '@nats-io/jetstream'
import { Kvm } from '@nats-io/kv'
import { errors, nkeyAuthenticator, nkeys, type NatsConnection } from '@nats-io/nats-core'
import { connect } from '@nats-io/transport-node'
import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { EVENT_NAMES, TASK_KINDS } from './support/names.ts'
import { accessTo, type Access } from '../bus/nats/access.ts'
import { connectNats } from '../bus/nats/connect.ts'
import { credentialsFile, parseRoleKey } from '../bus/nats/credentials.ts'
import { connectNet } from '../bus/nats/net.ts'
import { BUS_ROLES, type BusRole } from '../bus/nats/roles.ts'
import { SCHEMA_VERSION } from '../bus/messages.ts'
import { ownedServer } from '../bus/nats/store-owner.ts'
import { stores } from '../bus/subjects.ts'
import './support/property-seed.ts'
import { startProgram, type Program } from './support/program.ts'
import { SMALL } from './support/small-run.ts'
import type { Bus } from '../bus/bus.ts'

const RUN = 'closed'
let dir: string
let run: Program
const connections: NatsConnection[] = []
beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'visplay-closed-'))
  const args = ['--run', RUN, '--steps', '100000', '--out', join(dir, 'run'), ...SMALL]
  run = startProgram(['evolve', '--json', ...args])
  await run.said('step')
})
afterAll(async () => {
  for (const connection of connections) await connection.close()
  run?.kill('SIGKILL')
  await run?.ended
  await rm(dir, { recursive: true, force: true })
})

const access = async (role: BusRole): Promise<Access> => (await ownedServer(join(dir, 'run', 'nats'), role))!

async function as(role: BusRole): Promise<NatsConnection> {
  const connection = await connectNats({ access: await access(role), name: `test ${role}` })
  connections.push(connection)
  return connection
}

const publicKey = (role: BusRole): string => {
  const file = credentialsFile(join(dir, 'run', 'nats'), role)
  return parseRoleKey(readFileSync(file, 'utf8'), file).publicKey
}

/** What the server has refused to a connection so far. */
function refusals(connection: NatsConnection): string[] {
  const subjects: string[] = []
  void (async () => {
    for await (const event of connection.status()) {
      if (event.type === 'error' && event.error instanceof errors.PermissionViolationError) {
        subjects.push(event.error.subject)
      }
    }
  })()
  return subjects
}

/** The run goes on: some steps later it is still at work, and nobody gave anything up. */
async function unharmed(): Promise<void> {
  const step = () => run.events().filter((event) => event.event === 'step').length
  const before = step()
  await expect.poll(step, { timeout: 60_000 }).toBeGreaterThan(before + 2)
  expect(run.events().filter((event) => event.event === 'alarm' && event.name === 'dead-task')).toEqual([])
}

describe('a closed run', () => {
  test('lets nobody in without credentials, or with wrong ones', async () => {
    const { url, user } = await access('owner')
    const { host } = new URL(url)
    const foreign = nkeyAuthenticator(nkeys.createUser().getSeed())
    for (const wrong of [
      accessTo(url),
      accessTo(`nats://owner:${'0'.repeat(32)}@${host}`),
      { ...accessTo(url), user, authenticator: foreign },
      // Who one is, without the signature that proves it.
      { ...accessTo(url), user, authenticator: () => ({ nkey: publicKey('owner'), sig: '' }) },
    ]) {
      await expect(connectNats({ access: wrong, name: 'stranger' })).rejects.toThrow(/refuses: .*--creds FILE/)
    }
    await expect(connect({ servers: host, token: 'x', reconnect: false })).rejects.toThrow(errors.AuthorizationError)
  })

  test('keeps its secrets to the user; the server has the public halves, logs and what is said have nothing', async () => {
    const files = ['visplay.log', 'config.yaml', 'nats/nats.conf', 'nats/nats.log']
    const texts = await Promise.all(files.map((file) => readFile(join(dir, 'run', file), 'utf8')))
    const shown = [...texts, JSON.stringify(run.events()), inspect(await access('owner'), { depth: null })]
    expect(JSON.stringify(run.events())).toContain('--creds')
    for (const role of BUS_ROLES) {
      const file = credentialsFile(join(dir, 'run', 'nats'), role)
      expect((await stat(file)).mode & 0o077, role).toBe(0)
      const [name, seed] = (await readFile(file, 'utf8')).trim().split(':')
      expect([name, seed]).toEqual([role, expect.stringMatching(/^SU[A-Z2-7]{56}$/)])
      for (const text of shown) expect(text).not.toContain(seed)
      expect(texts[2]).toContain(publicKey(role))
    }
  })

  const mayNot: readonly (readonly [BusRole, string])[] = [
    ...[
      ...TASK_KINDS.map((kind) => `task.${kind}.x`),
      ...EVENT_NAMES.map((e) => `log.${e}.x`),
      'live.judge.x.heartbeat',
    ].map((subject) => ['tap', `visplay.${RUN}.${subject}`] as const),
    ...['version', 'step', 'eval', 'image', 'dropped'].map((e) => ['worker', `visplay.${RUN}.log.${e}.x`] as const),
    ...(['tap', 'worker'] as const).flatMap((role) =>
      [
        `$KV.${stores.values(RUN)}.head`,
        `$KV.${stores.values(RUN)}.config`,
        `$KV.${stores.values(RUN)}.lease.optimizer`,
      ].map((subject) => [role, subject] as const),
    ),
    ['tap', `$O.${stores.blobs(RUN)}.C.x`],
    ['tap', `$JS.ACK.${stores.tasks(RUN)}.judge_group.1.1.1.1.1`],
    ['tap', `$JS.API.CONSUMER.MSG.NEXT.${stores.tasks(RUN)}.judge_group`],
    ...(['tap', 'worker', 'optimizer'] as const).flatMap((role) =>
      [
        `$JS.API.STREAM.DELETE.${stores.log(RUN)}`,
        `$JS.API.STREAM.PURGE.${stores.log(RUN)}`,
        `$JS.API.STREAM.MSG.DELETE.${stores.log(RUN)}`,
        `$JS.API.STREAM.UPDATE.${stores.log(RUN)}`,
        `$JS.API.STREAM.CREATE.OTHER`,
        `$JS.API.CONSUMER.DELETE.${stores.tasks(RUN)}.judge_group`,
        `$KV.${stores.values(RUN)}.config`,
        `$SYS.REQ.SERVER.PING`,
        'visplay.another.log.verdict.x',
      ].map((subject) => [role, subject] as const),
    ),
  ]

  test('refuses what a role may not do', async () => {
    for (const role of ['tap', 'worker', 'optimizer'] as const) {
      const connection = await as(role)
      const seen = refusals(connection)
      const wanted = mayNot.filter(([who]) => who === role).map(([, subject]) => subject)
      for (const subject of wanted) connection.publish(subject, 'x')
      const foreign = role === 'tap' ? '_INBOX.worker.>' : '_INBOX.tap.>'
      connection.subscribe(foreign)
      await connection.flush()
      await expect.poll(() => seen.toSorted(), { message: role }).toEqual([...wanted, foreign].toSorted())
    }
    await unharmed()
  }, 120_000)

  test('a worker cannot forge a head, and is told so at once', async () => {
    const net = await connectNet(await access('worker'), RUN)
    const bus: Bus = net.connect('optimizer.forger')
    const { head, revision } = (await bus.getHead())!
    const forged = { ...head, version: head.version + 1000, parent: head.version }
    await expect(bus.moveHead(forged, revision)).rejects.toThrow(/do not permit to publish \$KV.*head/)
    await net.close()
    await unharmed()
  })

  test('a message of 100 MB never arrives', async () => {
    const connection = await as('worker')
    const body = new Uint8Array(100 * 1024 * 1024)
    expect(() => connection.publish(`visplay.${RUN}.log.remark.big`, body)).toThrow(/payload/i)
    const { url, authenticator } = await access('worker')
    const { hostname, port } = new URL(url)
    const socket = connectSocket(Number(port), hostname)
    let said = ''
    socket.on('data', (data: Buffer) => (said += data.toString()))
    // The server cuts the line at the size, before the rest.
    socket.on('error', () => {})
    const closed = new Promise((resolve) => socket.once('close', resolve))
    await expect.poll(() => said).toMatch(/^INFO .*\r\n/)
    const { nonce } = JSON.parse(said.slice('INFO '.length)) as { nonce: string }
    socket.write(`CONNECT ${JSON.stringify({ ...authenticator!(nonce), verbose: false })}\r\n`)
    socket.write(`PUB visplay.${RUN}.log.remark.big ${body.length}\r\n`)
    await closed
    expect(said).toMatch(/maximum payload/i)
    await unharmed()
  })

  test('messages of any content on every subject that a worker may use do no harm (10,000)', async () => {
    const connection = await as('worker')
    const js = jetstream(connection)
    const envelope = {
      version: SCHEMA_VERSION,
      traceparent: `00-${'a'.repeat(32)}-${'b'.repeat(16)}-01`,
      at: new Date().toISOString(),
      by: 'fuzz.1',
    }
    const json = fc.jsonValue({ maxDepth: 3 })
    const body = (schema: string) =>
      fc.oneof(
        fc.uint8Array({ maxLength: 200 }),
        json.map((value) => Buffer.from(JSON.stringify(value))),
        json.map((data) => Buffer.from(JSON.stringify({ ...envelope, schema, data }))),
        fc.constant(Buffer.from(JSON.stringify({ ...envelope, schema, version: 99, data: {} }))),
        fc.constant(Buffer.from(JSON.stringify({ ...envelope, schema, data: { $blob: `sha256-${'0'.repeat(64)}` } }))),
      )
    // Not `dead` and `alarm`: those are about people, and are told to them.
    const events = ['questions', 'answers', 'verdict', 'generated', 'logprobs', 'gradient', 'remark']
    const live = ['heartbeat', 'progress', 'transition']
    const subjects = [
      ...TASK_KINDS.map((kind) => [`task.${kind}`, kind] as const),
      ...events.map((event) => [`log.${event}`, event] as const),
      ...live.map((kind) => [`live.fuzz.1`, kind] as const),
    ]
    let sent = 0
    const samples = fc.sample(
      fc
        .constantFrom(...subjects)
        .chain(([prefix, schema]) => body(schema).map((bytes) => ({ prefix, schema, bytes }))),
      10_000,
    )
    for (const { prefix, schema, bytes } of samples) {
      const id = prefix.startsWith('live') ? schema : `fuzz-${sent}`
      connection.publish(`visplay.${RUN}.${prefix}.${id}`, bytes)
      if (++sent % 250 === 0) await connection.flush()
    }
    expect(sent).toBe(10_000)
    const step = () => run.events().filter((event) => event.event === 'step').length
    const before = step()
    await expect.poll(step, { timeout: 100_000 }).toBeGreaterThan(before + 2)
    const kv = await new Kvm(js).open(stores.values(RUN), { allow_direct: true })
    expect(await kv.get('head')).not.toBeNull()
    run.kill('SIGINT')
    const ended = await run.ended
    expect([ended.code, ended.stderr.includes('go on with')]).toEqual([130, true])
  }, 180_000)
})
