/** The bus of a run, whether somebody works on it or not. */
import type { Bus } from '../../bus/bus.ts'
import { connectNet } from '../../bus/nats/net.ts'
import { Closing } from '../evolve/closing.ts'
import { instanceOf } from '../evolve/instance.ts'
import { serverOf } from '../tap/server-of.ts'

export async function openBus(folder: string): Promise<{ bus: Bus; close: () => Promise<void> }> {
  const closing = new Closing()
  try {
    const { access, run } = closing.add(await serverOf(folder, 'worker'), (server) => server.stop())
    const net = closing.add(await connectNet(access, run), (n) => n.close())
    return { bus: net.connect(instanceOf('dead')), close: () => closing.close() }
  } catch (error) {
    await closing.close()
    throw error
  }
}
