/** A run's network on NATS. */
import type { Bus } from '../bus.ts'
import { CarriedBus } from '../carried-bus.ts'
import { Lifetime } from '../lifetime.ts'
import type { Net } from '../net.ts'
import type { Access } from './access.ts'
import { NatsBlobs } from './blobs.ts'
import { connectNats } from './connect.ts'
import { LogTail } from './log-tail.ts'
import { NatsCarrier } from './nats-carrier.ts'
import { openShared, type NatsOptions } from './shared.ts'

const CACHE_BYTES = 256 * 1024 * 1024

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
  const life = new Lifetime(`run ${run}`)
  try {
    const shared = await openShared(connection, run, access.user, options)
    const tail = new LogTail(shared, life)
    const blobs = new NatsBlobs(shared, life, options.blobCacheBytes ?? CACHE_BYTES)
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
        life.end()
        await shared.link.idle()
        if (shared.link.up) await connection.drain()
        else await connection.close()
      },
    }
  } catch (error) {
    await connection.close()
    throw error
  }
}
