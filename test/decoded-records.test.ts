/** Followers of one log in one process share what they read. */
import { expect, test } from 'vitest'
import { createMemoryNet } from '../bus/memory.ts'
import { decodeOnce } from '../bus/decoded-records.ts'
import type { Envelope } from '../bus/messages.ts'

test('two followers of a log get the same message', async () => {
  const net = createMemoryNet('shared')
  const [a, b] = [net.connect('judge.1'), net.connect('reasoner.1')]
  await a.append('dropped', 'g', { step: 1, group: 'g', reason: 'zero variance' })
  const read = async (bus: typeof a) => {
    for await (const record of bus.read(['dropped'], { follow: false, signal: new AbortController().signal }))
      return record
    throw new Error('no record')
  }
  const [first, second] = [await read(a), await read(b)]
  expect(first.message.data.reason).toBe('zero variance')
  expect(second.message).toBe(first.message)
  await net.close()
})

test('what did not decode is tried again', async () => {
  const bytes = new Uint8Array(3)
  const message: Envelope<number> = { schema: 's', version: 1, traceparent: '', at: '', by: '', data: 7 }
  await expect(decodeOnce(bytes, () => Promise.reject(new Error('its blob is missing')))).rejects.toThrow('missing')
  expect(await decodeOnce(bytes, () => Promise.resolve(message))).toBe(message)
  expect(await decodeOnce(bytes, () => Promise.reject(new Error('not asked')))).toBe(message)
})
