/** Blobs as other clients of JetStream's object store see them. */
import { createHash, randomBytes } from 'node:crypto'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { jetstreamManager } from '@nats-io/jetstream'
import { Objm, type ObjectStore } from '@nats-io/obj'
import { connect, type NatsConnection } from '@nats-io/transport-node'
import { afterAll, beforeAll, expect, test } from 'vitest'
import type { Bus } from '../bus/bus.ts'
import { connectNet } from '../bus/nats/net.ts'
import { startServer, type NatsServer } from '../bus/nats/server.ts'
import type { Net } from '../bus/net.ts'
import { stores } from '../bus/subjects.ts'

let dir: string
let server: NatsServer
let net: Net
let bus: Bus
let connection: NatsConnection
let objects: ObjectStore
beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'visplay-blobs-'))
  server = await startServer({ storeDir: dir })
  net = await connectNet(server.access, 'blobs')
  bus = net.connect('test.1')
  connection = await connect({ servers: server.url })
  objects = await new Objm(connection).open(stores.blobs('blobs'))
})
afterAll(async () => {
  await net.close()
  await connection.close()
  await server.stop()
  await rm(dir, { recursive: true })
})

const nameOf = (bytes: Uint8Array) => `sha256-${createHash('sha256').update(bytes).digest('hex')}`

/** Empty, of one chunk, of chunks to the byte, and of more chunks than are on their way at once. */
test.for([0, 1000, 2 * 512 * 1024, 20 * 512 * 1024 + 7])(
  'the client library reads a blob of %d bytes',
  async (size) => {
    const bytes = randomBytes(size)
    const name = await bus.putBlob(bytes)
    expect(name).toBe(nameOf(bytes))
    // `getBlob` of the library compares its own digest of the chunks with the one of the entry.
    const read = await objects.getBlob(name)
    expect(Buffer.compare(read!, bytes)).toBe(0)
    const info = await objects.info(name)
    expect(info).toMatchObject({ name, size, chunks: Math.ceil(size / (512 * 1024)), deleted: false })
  },
)

test('a blob that another client has written is read, in whatever chunks and places', async () => {
  const [bytes, other] = [randomBytes(1_000_000), randomBytes(1_000_000)]
  const options = { max_chunk_size: 100_000 }
  await Promise.all([bytes, other].map((content) => objects.putBlob({ name: nameOf(content), options }, content)))
  expect(Buffer.compare(await bus.getBlob(nameOf(bytes)), bytes)).toBe(0)
  expect(Buffer.compare(await bus.getBlob(nameOf(other)), other)).toBe(0)
})

test('blobs that are written at once are read from where each of their chunks is', async () => {
  const contents = Array.from({ length: 4 }, () => randomBytes(6_000_000))
  const names = await Promise.all(contents.map((content) => bus.putBlob(content)))
  const fresh = await connectNet(server.access, 'blobs')
  const reader = fresh.connect('test.reader')
  const read = await Promise.all(names.map((name) => reader.getBlob(name)))
  expect(read.map((bytes, i) => Buffer.compare(bytes, contents[i]!))).toEqual([0, 0, 0, 0])
  await fresh.close()
})

test('a blob that lacks a chunk is an error', async () => {
  const bytes = randomBytes(5_000_000)
  const name = await bus.putBlob(bytes)
  const manager = await jetstreamManager(connection)
  const { metadata } = (await objects.info(name))!
  await manager.streams.deleteMessage(
    `OBJ_${stores.blobs('blobs')}`,
    Number(metadata!['visplay-chunks']!.split(',')[3]),
  )
  const fresh = await connectNet(server.access, 'blobs')
  await expect(fresh.connect('test.reader').getBlob(name)).rejects.toThrow(/cannot be read back/)
  await fresh.close()
})

test('many processes may put the same blob at once', async () => {
  const nets = await Promise.all([1, 2, 3].map(() => connectNet(server.access, 'blobs')))
  const bytes = randomBytes(3_000_000)
  const buses = nets.map((n, i) => n.connect(`test.put${i}`))
  const names = await Promise.all(buses.map((b) => b.putBlob(bytes)))
  expect(new Set(names)).toEqual(new Set([nameOf(bytes)]))
  const fresh = await connectNet(server.access, 'blobs')
  expect(Buffer.compare(await fresh.connect('test.get').getBlob(nameOf(bytes)), bytes)).toBe(0)
  await Promise.all([...nets, fresh].map((n) => n.close()))
})

test('a deleted blob can be put again', async () => {
  const bytes = randomBytes(700_000)
  const name = await bus.putBlob(bytes)
  await bus.deleteBlob(name)
  expect(await objects.getBlob(name)).toBeNull()
  await bus.putBlob(bytes)
  expect(Buffer.compare((await objects.getBlob(name))!, bytes)).toBe(0)
})
