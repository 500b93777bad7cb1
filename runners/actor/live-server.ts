/** Where a run that goes on can be reached from this machine. */
import { join } from 'node:path'
import { ownedServer } from '../../bus/nats/store-owner.ts'
import { readConfig } from '../../configs/load.ts'
import { JoinError } from '../join/join-error.ts'

/** Throws JoinError when nobody works on the run. */
export async function liveServer(folder: string): Promise<{ url: string; run: string }> {
  const { run, bus } = readConfig(join(folder, 'config.yaml'))
  const url = bus.nats ?? (await ownedServer(join(folder, 'nats'), 'worker'))
  if (url === null || run === null) {
    throw new JoinError(`nobody works on the run in ${folder}; resume it: npx visplay evolve --resume ${folder}`)
  }
  return { url, run }
}
