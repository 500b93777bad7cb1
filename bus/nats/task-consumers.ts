/** The consumers of the work queue, one for each kind of task. Who owns the run makes them; the others find them. */
import { AckPolicy, type ConsumerConfig, type JetStreamManager } from '@nats-io/jetstream'
import { nanos } from '@nats-io/nats-core'
import { taskSchemas, type TaskKind } from '../messages.ts'
import { stores, subjects } from '../subjects.ts'

/** Names of consumers have no dots. */
export const durable = (kind: TaskKind): string => kind.replace('.', '_')

function consumerOf(run: string, kind: TaskKind, ackWaitMs: number): Partial<ConsumerConfig> {
  return {
    durable_name: durable(kind),
    filter_subject: subjects.tasksOf(run, kind),
    ack_policy: AckPolicy.Explicit,
    ack_wait: nanos(ackWaitMs),
    // The bus gives a task up itself, at the delivery after the last: the server would just leave it in the stream.
    max_deliver: -1,
    max_ack_pending: -1,
  }
}

/** Makes the consumer of a kind, if there is none. */
export async function makeConsumer(
  jsm: JetStreamManager,
  run: string,
  kind: TaskKind,
  ackWaitMs: number,
): Promise<void> {
  await jsm.consumers.add(stores.tasks(run), consumerOf(run, kind, ackWaitMs))
}

/** Makes those that there are not yet: the acknowledgement time of a run stays what it was when the run began. */
export async function makeConsumers(jsm: JetStreamManager, run: string, ackWaitMs: number): Promise<void> {
  const known = (await ackWaitOf(jsm, run)) ?? ackWaitMs
  const kinds = Object.keys(taskSchemas) as TaskKind[]
  await Promise.all(kinds.map((kind) => makeConsumer(jsm, run, kind, known)))
}

/** The acknowledgement time of a run in milliseconds; null when it has no consumers yet. */
export async function ackWaitOf(jsm: JetStreamManager, run: string): Promise<number | null> {
  for await (const { config } of jsm.consumers.list(stores.tasks(run))) return (config.ack_wait ?? 0) / 1e6 || null
  return null
}
