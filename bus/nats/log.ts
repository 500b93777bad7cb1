/** The log of a run on JetStream: append, look up, read in order. */
import { DeliverPolicy, type ConsumerMessages, type JsMsg } from '@nats-io/jetstream'
import type { RawRecord, ReadOptions } from '../carrier.ts'
import type { Lifetime } from '../lifetime.ts'
import type { EventName } from '../messages.ts'
import { stores, subjects } from '../subjects.ts'
import { isRepeat, patiently } from './patience.ts'
import type { Shared } from './shared.ts'

/** How soon a reader notices that its consumer is gone is a multiple of this time. */
const CONSUME_EXPIRES_MS = 4000

/** Appends once per event and id; `duplicate` when a record of that id is there. */
export async function appendRecord(
  shared: Shared,
  life: Lifetime,
  event: EventName,
  id: string,
  bytes: Uint8Array,
): Promise<{ duplicate: boolean }> {
  const subject = subjects.log(shared.run, event, id)
  return patiently(shared, life, `appending ${subject}`, async () => {
    try {
      return await shared.publisher.publish(subject, bytes, { id: `${event}.${id}`, first: true })
    } catch (error) {
      if (isRepeat(error)) return { duplicate: true }
      throw error
    }
  })
}

/** The record of an id; null when there is none. */
export async function findRecord(
  shared: Shared,
  life: Lifetime,
  event: EventName,
  id: string,
): Promise<RawRecord | null> {
  const subject = subjects.log(shared.run, event, id)
  const stored = await patiently(shared, life, `looking up ${subject}`, () =>
    shared.jsm.direct.getMessage(stores.log(shared.run), { last_by_subj: subject }),
  )
  return stored && { seq: stored.seq, event, id, subject, bytes: stored.data }
}

/** Records in order of their sequence numbers; goes on where it was after the server was away. */
export async function* readRecords(
  shared: Shared,
  life: Lifetime,
  events: readonly EventName[],
  { follow, fromSeq = 1, signal }: ReadOptions,
): AsyncGenerator<RawRecord> {
  life.assertOpen()
  const last = follow ? Infinity : await lastSequence(shared, life)
  for (let next = fromSeq; next <= last && !signal.aborted && !life.closed;) {
    const { messages, pending } = await openReader(shared, life, events, next)
    if (!follow && pending === 0) {
      messages.stop()
      break
    }
    const forget = life.onEnd(signal, () => messages.stop())
    const unlisten = shared.link.onBack(() => messages.stop())
    try {
      for await (const message of messages) {
        if (message.seq > last) return
        next = message.seq + 1
        yield toRecord(message)
        if (!follow && message.info.pending === 0) return
      }
    } finally {
      forget()
      unlisten()
      messages.stop()
    }
  }
  if (!signal.aborted) life.assertOpen()
}

/** The sequence number of the newest record, 0 when there is none. */
export async function lastSequence(shared: Shared, life: Lifetime): Promise<number> {
  const stream = stores.log(shared.run)
  return (await patiently(shared, life, 'reading the log', () => shared.jsm.streams.info(stream))).state.last_seq
}

/** Ordered messages of some events from a sequence number on, and how many there are now. */
async function openReader(
  shared: Shared,
  life: Lifetime,
  events: readonly EventName[],
  fromSeq: number,
): Promise<{ messages: ConsumerMessages; pending: number }> {
  const open = async () => {
    const consumer = await shared.js.consumers.get(stores.log(shared.run), {
      filter_subjects: events.map((event) => subjects.logsOf(shared.run, event)),
      deliver_policy: DeliverPolicy.StartSequence,
      opt_start_seq: fromSeq,
    })
    const { num_pending: pending } = await consumer.info(true)
    return { messages: await consumer.consume({ expires: CONSUME_EXPIRES_MS, max_messages: 500 }), pending }
  }
  return patiently(shared, life, 'reading the log', open, ({ messages }) => messages.stop())
}

function toRecord(message: JsMsg): RawRecord {
  const [event, id] = message.subject.split('.').slice(-2)
  return { seq: message.seq, event: event as EventName, id: id!, subject: message.subject, bytes: message.data }
}
