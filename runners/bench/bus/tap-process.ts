/** `visplay tap --follow --json >/dev/null` beside a run. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { accessWith, type Access } from '../../../bus/nats/access.ts'
import { Tap } from '../../../bus/nats/tap.ts'
import { PACKAGE_ROOT } from '../../../configs/load.ts'
import type { BenchRun } from './bench-server.ts'
import { usageOf, usedBetween } from './proc.ts'

export interface ListeningTap {
  /** Processor time since it listens, in seconds. */
  used(): Promise<number>
  end(): Promise<void>
}

/** Resolves when it listens. */
export async function startTap({ url, tapCreds, run }: BenchRun): Promise<ListeningTap> {
  const args = ['tap', '--follow', '--json', '--nats', url, '--creds', tapCreds, '--run', run]
  const child = spawn(process.execPath, [join(PACKAGE_ROOT, 'runners', 'bin.mjs'), ...args], { stdio: 'ignore' })
  const exited = once(child, 'exit')
  const end = async () => {
    child.kill('SIGINT')
    await exited
  }
  try {
    await untilRead(await accessWith(url, { creds: tapCreds }), run, () => child.exitCode !== null)
    const before = await usageOf(child.pid!)
    return { used: async () => usedBetween(before, await usageOf(child.pid!)).coreSeconds, end }
  } catch (error) {
    await end()
    throw error
  }
}

/** Until somebody reads the log of the run. */
async function untilRead(access: Access, run: string, gone: () => boolean): Promise<void> {
  const tap = await Tap.open(access, run)
  try {
    while ((await tap.readers()) === 0) {
      if (gone()) throw new Error('visplay tap has ended instead of listening')
      await sleep(20)
    }
  } finally {
    await tap.close()
  }
}
