/** What processes use, as the kernel of Linux counts it. */
import { readFile } from 'node:fs/promises'

/** Ticks of /proc in a second: fixed for every program on Linux, whatever the kernel uses inside. */
const TICKS = 100

export interface Usage {
  /** Processor time of all threads; grows in steps of 10 ms. */
  readonly coreSeconds: number
  /** Bytes that went through read calls, sockets and files alike. */
  readonly readBytes: number
  /** Bytes that went through write calls. */
  readonly writtenBytes: number
}

/** Of a process since it began. Throws where there is no /proc. */
export async function usageOf(pid: number): Promise<Usage> {
  const [stat, io] = await Promise.all([proc(`${pid}/stat`), proc(`${pid}/io`)])
  // The second field is the name of the program in brackets, which may hold anything; utime and stime are the 14th and 15th.
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
  const bytes = (name: string) => Number(new RegExp(`^${name}: (\\d+)$`, 'm').exec(io)?.[1])
  const coreSeconds = (Number(fields[11]) + Number(fields[12])) / TICKS
  return { coreSeconds, readBytes: bytes('rchar'), writtenBytes: bytes('wchar') }
}

/** Processor time that all programs of the machine have used since it began. */
export async function machineCoreSeconds(): Promise<number> {
  const [, ...ticks] = (await proc('stat')).split('\n')[0]!.split(/\s+/).map(Number)
  const [user, nice, system, , , irq, softirq] = ticks
  return (user! + nice! + system! + irq! + softirq!) / TICKS
}

async function proc(path: string): Promise<string> {
  try {
    return await readFile(`/proc/${path}`, 'utf8')
  } catch (cause) {
    throw new Error(`cannot read /proc/${path}: this benchmark needs Linux, and processes of this user`, { cause })
  }
}

/** What was used from `before` to `after`. */
export function usedBetween(before: Usage, after: Usage): Usage {
  return {
    coreSeconds: after.coreSeconds - before.coreSeconds,
    readBytes: after.readBytes - before.readBytes,
    writtenBytes: after.writtenBytes - before.writtenBytes,
  }
}
