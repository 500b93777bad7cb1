/** What everybody does who takes part in a run of another process: connect, say so, read its configuration. */
import type { Bus } from '../../bus/bus.ts'
import type { Access } from '../../bus/nats/access.ts'
import { connectNet } from '../../bus/nats/net.ts'
import type { Net } from '../../bus/net.ts'
import type { Config } from '../../configs/schema.ts'
import type { Closing } from '../evolve/closing.ts'
import { hasEnded } from '../evolve/ended.ts'
import { sayGoodbye, sayHello } from '../evolve/guests.ts'
import { instanceOf } from '../evolve/instance.ts'
import { configOf } from './choose-run.ts'
import { JoinError } from './join-error.ts'

/** How soon who takes part notices that the run has ended. */
export const LOOK_MS = 500

/** `role` names the process on the bus. Throws JoinError when there is nothing to take part in. */
export async function enterRun(
  access: Access,
  run: string,
  role: string,
  closing: Closing,
): Promise<{ net: Net; bus: Bus; config: Config }> {
  const net = closing.add(await connectNet(access, run), (n) => n.close())
  const bus = closing.add(net.connect(instanceOf(role)), (b) => Promise.resolve(sayGoodbye(b)))
  sayHello(bus)
  if (await hasEnded(bus)) throw new JoinError(`run ${run} has ended; there is nothing to do`)
  return { net, bus, config: await configOf(bus) }
}
