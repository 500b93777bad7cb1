/** Commits versions as the Optimizer does: blobs first, then the head. */
import { encodeWeights } from '../../../actors/weights-codec.ts'
import type { Bus } from '../../../bus/bus.ts'
import type { Head } from '../../../bus/messages.ts'
import { adapterOf } from './adapter.ts'

/** Stores the adapter of a version; the returned function moves the head to it. */
export async function prepareVersion(bus: Bus, version: number, adapterBytes: number): Promise<() => Promise<void>> {
  const adapter = await bus.putBlob(encodeWeights(adapterOf(adapterBytes, version)))
  const parent = version === 0 ? null : version - 1
  const head: Head = { version, parent, adapter, optimizer: adapter, epoch: 1, consumed: [] }
  const revision = (await bus.getHead())?.revision ?? null
  return async () => {
    if (!(await bus.moveHead(head, revision))) throw new Error('somebody else has moved the head')
  }
}

export async function commitVersion(bus: Bus, version: number, adapterBytes: number): Promise<void> {
  const move = await prepareVersion(bus, version, adapterBytes)
  await move()
}
