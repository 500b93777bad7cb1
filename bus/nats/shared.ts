/** What the buses of one process share: the connection, the stores of the run, news of reconnections. */
import { DiscardPolicy, jetstream, jetstreamManager, RetentionPolicy, StorageType } from '@nats-io/jetstream'
import type { JetStreamClient, JetStreamManager, StreamConfig } from '@nats-io/jetstream'
import { Kvm, type KV } from '@nats-io/kv'
import { nanos, type NatsConnection } from '@nats-io/nats-core'
import { ACK_WAIT_MS, DEDUPE_WINDOW_MS } from '../limits.ts'
import { stores, subjects } from '../subjects.ts'
import { Link } from './link.ts'
import { Publisher } from './publisher.ts'
import { inboxOf, makesStores } from './roles.ts'
import { ackWaitOf, makeConsumers } from './task-consumers.ts'
import { Turns } from './turns.ts'

export interface NatsOptions {
  /** A task unanswered by a dead process comes back after this time. */
  readonly ackWaitMs?: number
  /** How long an operation is repeated while the server is away or full, before UnavailableError. */
  readonly patienceMs?: number
  /**
   * For who owns the run: the folder where its blobs are files from now on, for processes of this machine alone; null =
   * they are on the server. As the run says if left out.
   */
  readonly blobs?: string | null
  /** All who follow the log in this process share one reader of it: for a process of many actors, who read everything. */
  readonly readLogOnce?: boolean
  /** Bytes of blobs kept in memory. */
  readonly blobCacheBytes?: number
}

/** An answer that takes longer is asked for again. */
export const REQUEST_MS = 5000
/** Tasks waiting at once; a publisher beyond that waits. */
const MAX_TASKS = 100_000
/** Past heads kept for `tap` and `replay`; the most a bucket can. */
const HISTORY = 64

export interface Shared {
  readonly run: string
  readonly connection: NatsConnection
  readonly link: Link
  readonly js: JetStreamClient
  readonly jsm: JetStreamManager
  readonly values: KV
  readonly publisher: Publisher
  readonly turns: Turns
  /** Where answers to this user go. */
  readonly inboxPrefix: string
  readonly ackWaitMs: number
  readonly patienceMs: number
  readonly readLogOnce: boolean
}

/**
 * Opens the stores of `run`. Its owner makes those that do not exist (asking for one that is there changes nothing); who
 * joins as another `user` may not, and need not.
 */
export async function openShared(
  connection: NatsConnection,
  run: string,
  user: string | null,
  options: NatsOptions,
): Promise<Shared> {
  const patienceMs = options.patienceMs ?? 60_000
  const timeout = Math.min(REQUEST_MS, patienceMs)
  const js = jetstream(connection, { timeout })
  const jsm = await jetstreamManager(connection, { timeout })
  const make = makesStores(user)
  const [values] = await Promise.all([
    make
      ? new Kvm(js).create(stores.values(run), { history: HISTORY, storage: StorageType.File })
      : new Kvm(js).open(stores.values(run), { allow_direct: true }),
    ...(make ? streams(run).map((config) => jsm.streams.add(config)) : []),
  ])
  const ackWaitMs = options.ackWaitMs ?? ACK_WAIT_MS
  const inboxPrefix = user === null ? '_INBOX' : inboxOf(user)
  if (make) await makeConsumers(jsm, run, ackWaitMs)
  return {
    run,
    connection,
    link: new Link(connection),
    js,
    jsm,
    values,
    turns: new Turns(),
    publisher: new Publisher(connection, inboxPrefix, timeout),
    inboxPrefix,
    // That of the run, whatever is asked for now.
    ackWaitMs: (await ackWaitOf(jsm, run)) ?? ackWaitMs,
    patienceMs,
    readLogOnce: options.readLogOnce ?? false,
  }
}

/** In both streams a subject names one thing, so the server itself refuses the second message of an id. */
function streams(run: string): (Partial<StreamConfig> & { name: string })[] {
  const common = {
    storage: StorageType.File,
    discard: DiscardPolicy.New,
    max_msgs_per_subject: 1,
    discard_new_per_subject: true,
    duplicate_window: nanos(DEDUPE_WINDOW_MS),
    allow_direct: true,
  }
  return [
    {
      ...common,
      name: stores.tasks(run),
      subjects: [subjects.tasks(run)],
      retention: RetentionPolicy.Workqueue,
      max_msgs: MAX_TASKS,
    },
    {
      ...common,
      name: stores.log(run),
      subjects: [subjects.logs(run)],
      retention: RetentionPolicy.Limits,
      deny_delete: true,
      deny_purge: true,
    },
  ]
}
