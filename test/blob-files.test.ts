/** Blobs as files of the folder of a run: who finds them, what a death leaves, and the way from and to the server. */
import { createHash, randomBytes } from 'node:crypto'
import { mkdtemp, readdir, readFile, rm, stat, utimes, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Objm } from '@nats-io/obj'
import { connect } from '@nats-io/transport-node'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { accessWith } from '../bus/nats/access.ts'
import { BlobFiles, blobFolder } from '../bus/nats/blob-files.ts'
import { credentialsFile } from '../bus/nats/credentials.ts'
import { FileBlobs } from '../bus/nats/file-blobs.ts'
import { connectNet } from '../bus/nats/net.ts'
import { startServer, type NatsServer } from '../bus/nats/server.ts'
import { localAccess } from '../bus/nats/store-owner.ts'
import { Tap } from '../bus/nats/tap.ts'
import { Lifetime } from '../bus/lifetime.ts'
import { stores } from '../bus/subjects.ts'

const RUN = 'files'
let dir: string
let folder: string
let server: NatsServer
beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'visplay-files-'))
  folder = blobFolder(dir)
  server = await startServer({ storeDir: dir, run: RUN })
})
afterAll(async () => {
  await server.stop()
  await rm(dir, { recursive: true })
})

const nameOf = (bytes: Uint8Array) => `sha256-${createHash('sha256').update(bytes).digest('hex')}`
/** By its address and credentials alone, as somebody who joins. */
const joining = async (role: 'worker' | 'tap') => accessWith(server.url, { creds: credentialsFile(dir, role) })

test('a worker and a tap of this machine read the files of the run, and the worker writes such', async () => {
  const own = await connectNet(server.access, RUN, { blobs: folder })
  const bytes = randomBytes(3_000_000)
  const name = await own.connect('evolve.1').putBlob(bytes)
  expect(Buffer.compare(await readFile(join(folder, name)), bytes)).toBe(0)
  const guest = await connectNet(await joining('worker'), RUN)
  const worker = guest.connect('model.1')
  expect(Buffer.compare(await worker.getBlob(name), bytes)).toBe(0)
  const gradient = await worker.putBlob(randomBytes(2_000_000))
  expect((await stat(join(folder, gradient))).size).toBe(2_000_000)
  const taps = [
    await Tap.open(await joining('tap'), RUN),
    await Tap.open(await localAccess(dir, server.url, 'tap'), RUN),
  ]
  for (const tap of taps) {
    expect(Buffer.compare(await tap.getBlob(name), bytes)).toBe(0)
    await tap.close()
  }
  await worker.deleteBlob(gradient)
  expect(await readdir(folder)).not.toContain(gradient)
  await guest.close()
  await own.close()
})

test('who reaches the server but not the folder is told so, and what to do', async () => {
  const own = await connectNet(server.access, RUN, { blobs: folder })
  const mark = join(folder, 'folder.id')
  const before = await readFile(mark, 'utf8')
  await writeFile(mark, 'a folder of the same path on another machine')
  await expect(connectNet(await joining('worker'), RUN)).rejects.toThrow(/cannot be read here.*--listen/)
  const tap = await Tap.open(await joining('tap'), RUN)
  await expect(tap.getBlob(nameOf(randomBytes(1)))).rejects.toThrow('--listen')
  await writeFile(mark, before)
  await expect(tap.getBlob(nameOf(randomBytes(1)))).rejects.toThrow('missing')
  await tap.close()
  await own.close()
})

test('a blob is whole or not there, and what killed writers left goes in time', async () => {
  const files = new BlobFiles(folder)
  await files.prepare()
  const name = nameOf(randomBytes(10))
  const [old, young] = ['1', '2'].map((id) => join(folder, `${name}.${id}.partial`))
  await writeFile(old!, 'half')
  await utimes(old!, new Date(0), new Date(0))
  await writeFile(young!, 'half')
  expect(await files.read(name)).toBeNull()
  await files.prepare()
  expect((await readdir(folder)).filter((file) => file.endsWith('.partial'))).toEqual([`${name}.2.partial`])
  await rm(young!)
  await expect(files.read('../owner.creds')).rejects.toThrow('no name of a blob')
  await expect(files.write('sha256-x', randomBytes(1))).rejects.toThrow('no name of a blob')
})

test('writers of the same blob do not disturb each other, and a truncated one is replaced', async () => {
  const files = [new BlobFiles(folder), new BlobFiles(folder)]
  const bytes = randomBytes(5_000_000)
  const name = nameOf(bytes)
  await writeFile(join(folder, name), bytes.subarray(0, 1000))
  await Promise.all([...files, ...files].map((f) => f.write(name, bytes)))
  expect(Buffer.compare((await files[0]!.read(name))!, bytes)).toBe(0)
  expect((await readdir(folder)).filter((file) => file.endsWith('.partial'))).toEqual([])
  await Promise.all(files.map((f) => f.close()))
})

test('the file of a deleted blob serves the next one of its size, never under the old name', async () => {
  const files = new BlobFiles(folder)
  const [first, second] = [randomBytes(2_000_000), randomBytes(2_000_000)]
  await files.write(nameOf(first), first)
  const { ino } = await stat(join(folder, nameOf(first)))
  const reading = files.read(nameOf(first))
  expect(await files.delete(nameOf(first))).toBe(true)
  expect(await files.delete(nameOf(first))).toBe(false)
  await files.write(nameOf(second), second)
  expect((await stat(join(folder, nameOf(second)))).ino).toBe(ino)
  expect(await files.read(nameOf(first))).toBeNull()
  expect(Buffer.compare((await files.read(nameOf(second)))!, second)).toBe(0)
  // Who reads while it is deleted gets it whole, or not at all.
  const read = await reading
  if (read !== null) expect(Buffer.compare(read, first)).toBe(0)
  await files.delete(nameOf(second))
  await files.close()
  expect((await readdir(folder)).filter((file) => file.endsWith('.partial'))).toEqual([])
})

test('while the disk is full it is waited for, and that ends with one clear error', async () => {
  let full = 3
  class FullDisk extends BlobFiles {
    override write(name: string, bytes: Uint8Array): Promise<void> {
      if (full-- > 0) return Promise.reject(Object.assign(new Error('no space left on device'), { code: 'ENOSPC' }))
      return super.write(name, bytes)
    }
  }
  const never = () => Promise.reject(new Error('not asked for'))
  const about = { server: { store: never, fetch: never, delete: never }, life: new Lifetime('test.1') }
  const files = new FullDisk(folder)
  const blobs = new FileBlobs({ ...about, files, patienceMs: 5000 })
  const bytes = randomBytes(1000)
  await blobs.store(nameOf(bytes), bytes)
  expect(full).toBe(-1)
  expect(Buffer.compare(await blobs.fetch(nameOf(bytes)), bytes)).toBe(0)
  full = Infinity
  const impatient = new FileBlobs({ ...about, files, patienceMs: 100 })
  await expect(impatient.store(nameOf(bytes), bytes)).rejects.toThrow(/disk of .* is full; free space/)
  await files.close()
})

test('a run that had its blobs on the server reads and deletes them still; one that opens up takes its files there', async () => {
  const [first, second] = [randomBytes(1_000_000), randomBytes(1_000_000)]
  const onServer = await connectNet(server.access, RUN, { blobs: null })
  const name = await onServer.connect('evolve.1').putBlob(first)
  await onServer.close()
  const asFiles = await connectNet(server.access, RUN, { blobs: folder })
  const bus = asFiles.connect('evolve.2')
  expect(Buffer.compare(await bus.getBlob(name), first)).toBe(0)
  await bus.deleteBlob(name)
  await expect(bus.getBlob(name)).rejects.toThrow('missing')
  const other = await bus.putBlob(second)
  await asFiles.close()
  const opened = await connectNet(await localAccess(dir, server.url, 'owner'), RUN, { blobs: null })
  expect(Buffer.compare(await opened.connect('evolve.3').getBlob(other), second)).toBe(0)
  await expect(readdir(folder)).rejects.toThrow('ENOENT')
  const { authenticator } = server.access
  const connection = await connect({ servers: server.url, inboxPrefix: '_INBOX.owner', authenticator: authenticator! })
  const objects = await new Objm(connection).open(stores.blobs(RUN))
  expect(Buffer.compare((await objects.getBlob(other))!, second)).toBe(0)
  await connection.close()
  const worker = await connectNet(await joining('worker'), RUN)
  expect(Buffer.compare(await worker.connect('model.1').getBlob(other), second)).toBe(0)
  await worker.close()
  await opened.close()
})
