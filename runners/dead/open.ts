/** The bus of a run, whether somebody works on it or not. */
import { join } from 'node:path'
import type { Bus } from '../../bus/bus.ts'
import { connectNet } from '../../bus/nats/net.ts'
import { startServer } from '../../bus/nats/server.ts'
import { ownedServer } from '../../bus/nats/store-owner.ts'
import { readConfig } from '../../configs/load.ts'
import { Closing } from '../evolve/closing.ts'
import { instanceOf } from '../evolve/instance.ts'

export async function openBus(folder: string): Promise<{ bus: Bus; close: () => Promise<void> }> {
  const { run, bus: where } = readConfig(join(folder, 'config.yaml'))
  const storeDir = join(folder, 'nats')
  const closing = new Closing()
  try {
    let url = where.nats ?? (await ownedServer(storeDir, 'worker'))
    url ??= closing.add(await startServer({ storeDir, run: run! }), (server) => server.stop()).url
    const net = closing.add(await connectNet(url, run!), (n) => n.close())
    return { bus: net.connect(instanceOf('dead')), close: () => closing.close() }
  } catch (error) {
    await closing.close()
    throw error
  }
}
