/** A run's network on NATS. */
import type { NatsConnection } from '@nats-io/nats-core'
import type { Bus } from '../bus.ts'
import { CarriedBus } from '../carried-bus.ts'
import { Lifetime } from '../lifetime.ts'
import type { Net } from '../net.ts'
import type { Access } from './access.ts'
import { openBlobLink } from './blob-link.ts'
import { connectNats } from './connect.ts'
import type { Link } from './link.ts'
import { LogTail } from './log-tail.ts'
import { NatsCarrier } from './nats-carrier.ts'
import { openBlobs } from './open-blobs.ts'
import { openShared, type NatsOptions } from './shared.ts'

/**
 * Connects this process to `run` on a server; makes the run's streams and stores if they do not exist.
 * Throws NatsServerError for a server that is away, too old or without JetStream.
 *
 * @example
 * const server = await startServer({ storeDir: 'runs/demo/nats' })
 * const net = await connectNet(server.access, 'demo')
 * const bus = net.connect('questioner.1')
 */
export async function connectNet(access: Access, run: string, options: NatsOptions = {}): Promise<Net> {
  const connection = await connectNats({ access, name: `visplay ${run}` })
  const connections = [connection]
  const life = new Lifetime(`run ${run}`)
  try {
    const bulk = await connectNats({ access, name: `visplay ${run} blobs` })
    connections.push(bulk)
    const shared = await openShared(connection, run, access.user, options)
    const tail = new LogTail(shared, life)
    const blobLink = await openBlobLink(bulk, shared, access.user)
    const { blobs, close: closeBlobs } = await openBlobs(blobLink, access, life, options)
    const buses = new Set<Bus>()
    return {
      run,
      connect: (by) => {
        const bus = new CarriedBus(new NatsCarrier(shared, tail, blobs, by))
        buses.add(bus)
        return bus
      },
      close: async () => {
        await Promise.all([...buses].map((bus) => bus.close()))
        await closeBlobs()
        life.end()
        await Promise.all([leave(connection, shared.link), leave(bulk, blobLink.link)])
      },
    }
  } catch (error) {
    await Promise.all(connections.map((c) => c.close()))
    throw error
  }
}

async function leave(connection: NatsConnection, link: Link): Promise<void> {
  await link.idle()
  if (link.up) await connection.drain()
  else await connection.close()
}
