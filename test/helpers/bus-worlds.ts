/** The two carriers of the bus as a test sees them: networks of one run, and the misfortunes that can befall them. */
import { spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { Objm } from '@nats-io/obj'
import { connect } from '@nats-io/transport-node'
import { createMemoryNet } from '../../bus/memory.ts'
import type { TaskKind } from '../../bus/messages.ts'
import { connectNet } from '../../bus/nats/net.ts'
import type { NatsServer } from '../../bus/nats/server.ts'
import type { Net } from '../../bus/net.ts'
import { stores } from '../../bus/subjects.ts'

export const ACK_WAIT_MS = 900

export interface World {
  /** The network as one process sees it; each call is another process where the carrier has processes. */
  open(): Promise<Net>
  /** A process takes one task of this kind and dies without a word. */
  takeAndDie(kind: TaskKind): Promise<void>
  corrupt(blob: string): Promise<void>
  close(): Promise<void>
}

let runs = 0

export function memoryWorld(): World {
  const net = createMemoryNet(`memory-${++runs}`, { ackWaitMs: ACK_WAIT_MS })
  return {
    open: () => Promise.resolve(net),
    takeAndDie: async (kind) => {
      const bus = net.connect('model.doomed')
      const pull = bus.pull(kind, { credit: 1, signal: new AbortController().signal })
      await pull[Symbol.asyncIterator]().next()
      net.crash(bus)
    },
    corrupt: (blob) => Promise.resolve(net.corruptBlob(blob)),
    close: () => net.close(),
  }
}

/** @param folder where blobs are files; null = in the object store of the server. */
export function natsWorld(server: NatsServer, folder: string | null = null): World {
  const run = `nats-${++runs}`
  const nets: Net[] = []
  return {
    open: async () => {
      // The first one owns the run; the others find out by themselves.
      const own = nets.length === 0 ? { blobs: folder } : {}
      const options = { ackWaitMs: ACK_WAIT_MS, patienceMs: 3000, readLogOnce: folder !== null }
      const net = await connectNet(server.access, run, { ...options, ...own })
      nets.push(net)
      return net
    },
    takeAndDie: async (kind) => {
      const script = new URL('./take-and-hang.ts', import.meta.url).pathname
      const args = ['--import', 'tsx', script, server.url, run, kind, String(ACK_WAIT_MS)]
      const child = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'inherit'] })
      await once(child.stdout, 'data')
      child.kill('SIGKILL')
      await once(child, 'exit')
    },
    corrupt: async (blob) => {
      if (folder !== null) return writeFile(join(folder, blob), randomBytes(10))
      const connection = await connect({ servers: server.url })
      const objects = await new Objm(connection).open(stores.blobs(run))
      await objects.putBlob({ name: blob }, randomBytes(10))
      await connection.close()
    },
    close: async () => {
      await Promise.all(nets.map((net) => net.close()))
    },
  }
}
