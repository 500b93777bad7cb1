/** Publishing to a stream on a real server: what it answers, what it refuses, and what nobody answers. */
import { DiscardPolicy, jetstreamManager } from '@nats-io/jetstream'
import { errors, type NatsConnection } from '@nats-io/nats-core'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { accessWith } from '../bus/nats/access.ts'
import { connectNats } from '../bus/nats/connect.ts'
import { credentialsFile } from '../bus/nats/credentials.ts'
import { connectNet } from '../bus/nats/net.ts'
import { Publisher } from '../bus/nats/publisher.ts'
import { startServer, type NatsServer } from '../bus/nats/server.ts'

let folder: string
let server: NatsServer
let connection: NatsConnection
let publisher: Publisher
const bytes = new TextEncoder().encode('message')

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'visplay-publisher-'))
  server = await startServer({ storeDir: folder, run: 'published' })
  connection = await connectNats({ access: server.access, name: 'test' })
  const manager = await jetstreamManager(connection)
  const one = { max_msgs_per_subject: 1, discard: DiscardPolicy.New, discard_new_per_subject: true }
  await manager.streams.add({ name: 'S', subjects: ['s.*'], ...one })
  publisher = new Publisher(connection, '_INBOX', 300)
})
afterAll(async () => {
  await connection?.close()
  await server?.stop()
  await rm(folder, { recursive: true, force: true })
})

test('many at once, each with its own answer; an id that is known is a duplicate', async () => {
  const publish = (i: number) => publisher.publish(`s.${i}`, bytes, { id: `id-${i}` })
  const fresh = await Promise.all(Array.from({ length: 500 }, (_, i) => publish(i)))
  expect(new Set(fresh.map(({ duplicate }) => duplicate))).toEqual(new Set([false]))
  expect(await publish(7)).toEqual({ duplicate: true })
})

test('a second message of a subject is refused', async () => {
  await publisher.publish('s.once', bytes)
  await expect(publisher.publish('s.once', bytes)).rejects.toMatchObject({ name: 'JetStreamApiError' })
  await expect(publisher.publish('s.once', bytes, { first: true })).rejects.toThrow(/wrong last sequence/)
})

test('a subject of no stream has nobody who answers', async () => {
  await expect(publisher.publish('nowhere', bytes)).rejects.toBeInstanceOf(errors.NoRespondersError)
})

test('what is heard and not answered is given up', async () => {
  const silent = connection.subscribe('silent')
  await expect(publisher.publish('silent', bytes)).rejects.toBeInstanceOf(errors.TimeoutError)
  silent.unsubscribe()
})

test('what this user may not publish is said at once, and ends nothing else', async () => {
  const owner = await connectNet(server.access, 'published')
  const tap = await connectNet(await accessWith(server.url, { creds: credentialsFile(folder, 'tap') }), 'published')
  const bus = tap.connect('tap.1')
  const started = performance.now()
  const event = { step: 1, group: 'g', reason: 'r' }
  await expect(bus.append('dropped', 'g', event)).rejects.toThrow(/do not permit to publish visplay\.published\.log/)
  expect(performance.now() - started).toBeLessThan(2_000)
  await owner.connect('optimizer.1').append('dropped', 'g', event)
  await tap.close()
  await owner.close()
})

test('a closed connection answers nothing more', async () => {
  const own = await connectNats({ access: server.access, name: 'closing' })
  const closing = new Publisher(own, '_INBOX', 60_000)
  own.subscribe('quiet')
  const unanswered = closing.publish('quiet', bytes)
  await own.flush()
  await own.close()
  await expect(unanswered).rejects.toBeInstanceOf(errors.ClosedConnectionError)
})
