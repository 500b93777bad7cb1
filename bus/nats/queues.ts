/** What waits in the work queues of a run. */
import type { JetStreamManager } from '@nats-io/jetstream'
import { stores, subjects } from '../subjects.ts'

/** Tasks of one kind. */
export interface Queue {
  /** `role.what`. */
  readonly kind: string
  /** Nobody has taken them yet. */
  readonly waiting: number
  /** Taken, and not yet done. */
  readonly inFlight: number
  /** Of these, taken before by somebody who did not do them. */
  readonly redelivered: number
}

/** All of them, in order of their names. */
export async function queuesOf(jsm: JetStreamManager, run: string): Promise<Queue[]> {
  const queues: Queue[] = []
  const prefix = subjects.tasks(run).slice(0, -1)
  for await (const consumer of jsm.consumers.list(stores.tasks(run))) {
    const kind = (consumer.config.filter_subject ?? '').slice(prefix.length).replace(/\.\*$/, '')
    const { num_pending: waiting, num_ack_pending: inFlight, num_redelivered: redelivered } = consumer
    queues.push({ kind, waiting, inFlight, redelivered })
  }
  return queues.toSorted((a, b) => (a.kind < b.kind ? -1 : 1))
}
