/** How much memory this process may still take, as the system says. */
import { readFile } from 'node:fs/promises'
import { freemem, totalmem } from 'node:os'
import { join } from 'node:path'

/** Where the system says it; another root is for tests. */
export interface MemorySources {
  readonly root: string
  readonly free: number
  readonly total: number
}

/**
 * Bytes: the least of what is available (Linux: MemAvailable, which counts caches that can be dropped; else what is
 * free) and of what is left below the limits of the control groups (v2 and v1) that this process is in. Systems that
 * cannot tell what is available drop caches too: there, half of all memory counts as available at least.
 */
export async function availableMemory(
  { root, free, total }: MemorySources = { root: '/', free: freemem(), total: totalmem() },
): Promise<number> {
  const info = /^MemAvailable:\s+(\d+) kB$/m.exec((await textOf(join(root, 'proc/meminfo'))) ?? '')
  const system = info ? Number(info[1]) * 1024 : Math.max(free, total / 2)
  return Math.min(system, ...(await leftInGroups(root)))
}

async function leftInGroups(root: string): Promise<number[]> {
  const text = (await textOf(join(root, 'proc/self/cgroup'))) ?? ''
  const left: number[] = []
  for (const line of text.split('\n')) {
    const [id, controllers = '', path] = line.split(':')
    if (path === undefined) continue
    const v2 = id === '0' && controllers === ''
    if (!v2 && !controllers.split(',').includes('memory')) continue
    const mount = join(root, 'sys/fs/cgroup', v2 ? '' : 'memory')
    const names = v2 ? V2 : V1
    // Every group above has a limit of its own; inside a container only the own root may be visible.
    const parts = path.split('/').filter(Boolean)
    for (let n = parts.length; n >= 0; n--) {
      const free = await leftIn(join(mount, ...parts.slice(0, n)), names)
      if (free !== null) left.push(free)
    }
  }
  return left
}

interface GroupFiles {
  readonly limit: string
  readonly used: string
  /** File pages that can be dropped, in memory.stat. */
  readonly cached: RegExp
}
const V2: GroupFiles = { limit: 'memory.max', used: 'memory.current', cached: /^inactive_file (\d+)$/m }
const V1: GroupFiles = {
  limit: 'memory.limit_in_bytes',
  used: 'memory.usage_in_bytes',
  cached: /^total_inactive_file (\d+)$/m,
}

async function leftIn(folder: string, { limit, used, cached }: GroupFiles): Promise<number | null> {
  const texts = await Promise.all([limit, used, 'memory.stat'].map((name) => textOf(join(folder, name))))
  const [most, now] = texts.map((value) => (value === null ? NaN : Number(value.trim())))
  // "max", or the largest number that v1 can write, is no limit.
  if (!(most! < 2 ** 60) || !(now! >= 0)) return null
  const droppable = Number(cached.exec(texts[2] ?? '')?.[1] ?? 0)
  return Math.max(0, most! - now! + droppable)
}

const textOf = (file: string): Promise<string | null> => readFile(file, 'utf8').catch(() => null)
