/** Values of a run in JetStream's key-value store. */
import { JetStreamApiCodes, JetStreamApiError } from '@nats-io/jetstream'
import { errors } from '@nats-io/nats-core'
import type { RawValue } from '../carrier.ts'
import type { Lifetime } from '../lifetime.ts'
import { patiently } from './patience.ts'
import type { Shared } from './shared.ts'

export async function getValue(shared: Shared, life: Lifetime, key: string): Promise<RawValue | null> {
  const entry = await patiently(shared, life, `reading ${key}`, () => shared.values.get(key))
  return entry?.operation === 'PUT' ? { bytes: entry.value, revision: entry.revision } : null
}

export async function putValue(shared: Shared, life: Lifetime, key: string, bytes: Uint8Array): Promise<void> {
  await patiently(shared, life, `writing ${key}`, () => shared.values.put(key, bytes))
}

/** Compare-and-set. An attempt whose answer got lost is decided by reading the value: `bytes` are unlike any other's. */
export async function moveValue(
  shared: Shared,
  life: Lifetime,
  key: string,
  bytes: Uint8Array,
  expected: number | null,
): Promise<boolean> {
  return patiently(shared, life, `moving ${key}`, async () => {
    try {
      if (expected === null) await shared.values.create(key, bytes)
      else await shared.values.update(key, bytes, expected)
      return true
    } catch (error) {
      const lost = error instanceof JetStreamApiError && error.code === JetStreamApiCodes.StreamWrongLastSequence
      if (!lost && !(error instanceof errors.TimeoutError)) throw error
      const now = await shared.values.get(key)
      if (now && Buffer.compare(now.value, bytes) === 0) return true
      if ((now?.revision ?? null) !== expected) return false
      throw error
    }
  })
}

/** The value at once, then each newer one; after the server was away it watches anew, so that nothing is missed. */
export async function* watchValue(
  shared: Shared,
  life: Lifetime,
  key: string,
  signal: AbortSignal,
): AsyncGenerator<RawValue> {
  life.assertOpen()
  for (let seen = 0; !signal.aborted && !life.closed;) {
    const open = () => shared.values.watch({ key })
    const watch = await patiently(shared, life, `watching ${key}`, open, (late) => late.stop())
    const forget = life.onEnd(signal, () => watch.stop())
    const unlisten = shared.link.onBack(() => watch.stop())
    try {
      for await (const { operation, value, revision } of watch) {
        if (operation !== 'PUT' || revision <= seen) continue
        seen = revision
        yield { bytes: value, revision }
      }
    } finally {
      forget()
      unlisten()
      watch.stop()
    }
  }
}
