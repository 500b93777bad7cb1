/** Blobs as other clients of JetStream's object store see them. */
import { createHash, randomBytes } from 'node:crypto'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
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
  net = await connectNet(server.url, 'blobs')
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

test('many processes may put the same blob at once', async () => {
  const nets = await Promise.all([1, 2, 3].map(() => connectNet(server.url, 'blobs')))
  const bytes = randomBytes(3_000_000)
  const buses = nets.map((n, i) => n.connect(`test.put${i}`))
  const names = await Promise.all(buses.map((b) => b.putBlob(bytes)))
  expect(new Set(names)).toEqual(new Set([nameOf(bytes)]))
  const fresh = await connectNet(server.url, 'blobs')
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
