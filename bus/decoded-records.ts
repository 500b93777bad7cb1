/** Records that several actors of a process follow are decoded once, and nobody writes into what they say. */
import type { Envelope } from './messages.ts'

const decoded = new WeakMap<Uint8Array, Promise<Envelope<unknown>>>()

/** The message in `bytes`, which one event has. What does not decode is tried again by who reads it next. */
export function decodeOnce<T>(bytes: Uint8Array, decode: () => Promise<Envelope<T>>): Promise<Envelope<T>> {
  const known = decoded.get(bytes)
  if (known) return known as Promise<Envelope<T>>
  const message = decode()
  decoded.set(bytes, message)
  message.catch(() => decoded.delete(bytes))
  return message
}
