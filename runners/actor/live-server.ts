/** Where a run that goes on can be reached from this machine. */
import type { Access } from '../../bus/nats/access.ts'
import { JoinError } from '../join/join-error.ts'
import { runningServer } from '../tap/server-of.ts'

/** Throws JoinError when nobody works on the run. */
export async function liveServer(folder: string): Promise<{ access: Access; run: string }> {
  const running = await runningServer(folder, 'worker')
  if (running) return running
  throw new JoinError(`nobody works on the run in ${folder}; resume it: npx visplay evolve --resume ${folder}`)
}
