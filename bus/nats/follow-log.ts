/** Following the log through the reader that a process has anyway, instead of by a consumer of one's own on the server. */
import type { RawRecord, ReadOptions } from '../carrier.ts'
import { Channel } from '../channel.ts'
import type { Lifetime } from '../lifetime.ts'
import type { EventName } from '../messages.ts'
import type { LogTail } from './log-tail.ts'
import { readRecords } from './log.ts'
import type { Shared } from './shared.ts'

/** Records that wait for a slow follower; what comes after them it reads from the server when it gets there. */
const MOST_WAITING = 2000

/** The same records as `readRecords` with `follow`: first what the log has, then what the tail tells. */
export async function* followRecords(
  shared: Shared,
  life: Lifetime,
  tail: LogTail,
  events: readonly EventName[],
  { fromSeq = 1, signal }: Omit<ReadOptions, 'follow'>,
): AsyncGenerator<RawRecord> {
  life.assertOpen()
  const wanted = new Set(events)
  for (let next = fromSeq; !signal.aborted && !life.closed;) {
    const heard = new Channel<RawRecord>()
    let waiting = 0
    const { after, stop } = await tail.listen((record) => {
      if (!wanted.has(record.event)) return
      if (waiting === MOST_WAITING) return heard.end()
      waiting++
      heard.push(record)
    })
    const forget = life.onEnd(signal, () => heard.cut())
    try {
      // What is appended meanwhile comes both ways.
      const past = next <= after ? readRecords(shared, life, events, { follow: false, fromSeq: next, signal }) : []
      for await (const record of past) {
        next = record.seq + 1
        yield record
      }
      for await (const record of heard) {
        waiting--
        if (record.seq < next) continue
        next = record.seq + 1
        yield record
      }
    } finally {
      forget()
      stop()
    }
  }
  if (!signal.aborted) life.assertOpen()
}
