/** The server of a run on this machine: the one that runs, else one that is started to read or mend what is there. */
import { join } from 'node:path'
import { accessWith, type Access } from '../../bus/nats/access.ts'
import type { BusRole } from '../../bus/nats/roles.ts'
import { startServer } from '../../bus/nats/server.ts'
import { ownedServer } from '../../bus/nats/store-owner.ts'
import { readConfig } from '../../configs/load.ts'

export interface RunServer {
  readonly access: Access
  readonly run: string
  /** Ends what was started. */
  readonly stop: () => Promise<void>
}

/** With the credentials of `role` where somebody works on the run in `folder`; null where nobody does. */
export async function runningServer(folder: string, role: BusRole): Promise<Omit<RunServer, 'stop'> | null> {
  const { run, bus } = readConfig(join(folder, 'config.yaml'))
  const access =
    bus.nats === null
      ? await ownedServer(join(folder, 'nats'), role)
      : await accessWith(bus.nats, { creds: bus.creds, ca: bus.tls.ca })
  return access && { access, run: run! }
}

export async function serverOf(folder: string, role: BusRole): Promise<RunServer> {
  const running = await runningServer(folder, role)
  if (running) return { ...running, stop: () => Promise.resolve() }
  const run = readConfig(join(folder, 'config.yaml')).run!
  const server = await startServer({ storeDir: join(folder, 'nats'), run })
  return { access: server.access, run, stop: () => server.stop() }
}
