/** The log of a run as typed records, in order. */
import type { LogRecord } from '../../bus/bus.ts'
import { decode } from '../../bus/codec.ts'
import { eventSchemas, type EventData, type EventName } from '../../bus/messages.ts'
import type { Heard, Tap } from '../../bus/nats/tap.ts'
import type { z } from 'zod'

export type AnyRecord = { [E in EventName]: LogRecord<E> }[EventName]

export interface ReadOptions {
  /** The last sequence number that is read; Infinity = to the end. */
  readonly to: number
  /** Only these; all when left out. */
  readonly event?: EventName
  readonly signal: AbortSignal
  /** Told of records that are no messages of this release; they are left out. */
  readonly onProblem: (seq: number, problem: string) => void
}

/** What the log holds up to `to`, each record checked by its schema. */
export async function* readLog(tap: Tap, { to, event, signal, onProblem }: ReadOptions): AsyncGenerator<AnyRecord> {
  const filter = event === undefined ? 'log.>' : `log.${event}.*`
  for await (const heard of tap.listen({ filter, since: { seq: 1 }, follow: false, signal })) {
    if (heard.kind === 'gap' || heard.seq === null) continue
    if (heard.seq > to) return
    try {
      yield await recordOf(tap, heard, heard.seq)
    } catch (error) {
      onProblem(heard.seq, (error as Error).message)
    }
  }
  signal.throwIfAborted()
}

async function recordOf(tap: Tap, { subject, bytes }: Heard, seq: number): Promise<AnyRecord> {
  const [name = '', id = ''] = subject.split('.').slice(-2)
  if (!(name in eventSchemas)) throw new Error(`no event of visplay is called "${name}"`)
  const event = name as EventName
  const schema = eventSchemas[event] as unknown as z.ZodType<EventData<EventName>>
  return { seq, event, id, message: await decode(event, schema, bytes, subject, tap) } as AnyRecord
}
