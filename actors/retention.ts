/** Which blobs of the past are still needed, and the removal of those that are not. */
import type { Bus } from '../bus/bus.ts'
import { versionId } from './ids.ts'

export interface RetentionOptions {
  /** Newest versions whose weights and optimizer state are kept. */
  readonly keepVersions: number
  /** Versions whose weights are kept for good: the base and those that are evaluated. */
  readonly keeps: (version: number) => boolean
}

/** Removes what version `newest` made obsolete. Steps are retired one by one, so this looks at one version only. */
export async function retire(bus: Bus, newest: number, { keepVersions, keeps }: RetentionOptions): Promise<void> {
  const old = newest - keepVersions
  if (old < 0) return
  const [before, record, after] = await Promise.all(
    [old - 1, old, old + 1].map((v) => (v < 0 ? null : bus.find('version', versionId(v)))),
  )
  if (!record || !after) return
  // A step without an update shares the blobs of its neighbours.
  const { adapter, optimizer } = record.message.data
  const neighbours = [before, after].map((r) => r?.message.data)
  const unshared = (name: string) => neighbours.every((n) => n?.adapter !== name && n?.optimizer !== name)
  if (unshared(optimizer)) await bus.deleteBlob(optimizer)
  if (!keeps(old) && unshared(adapter)) await bus.deleteBlob(adapter)
}
