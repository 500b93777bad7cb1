/** Listening to a run: what its log holds and what is said now. Publishes nothing, makes nothing, waits for nobody. */
import {
  DeliverPolicy,
  jetstream,
  type ConsumerMessages,
  type JetStreamClient,
  type JetStreamManager,
} from '@nats-io/jetstream'
import { Kvm } from '@nats-io/kv'
import type { NatsConnection } from '@nats-io/nats-core'
import { Objm } from '@nats-io/obj'
import { verifyBlob } from '../blob-name.ts'
import { Channel } from '../channel.ts'
import type { EventName } from '../messages.ts'
import { keyOf, stores, subjects } from '../subjects.ts'
import type { Access } from './access.ts'
import type { BlobFiles } from './blob-files.ts'
import { findFiles } from './blob-place.ts'
import { connectNats } from './connect.ts'
import { queuesOf, type Queue } from './queues.ts'
import { readBlob } from './read-blob.ts'
import { NatsServerError } from './server-version.ts'

/** A message of the run; `seq` is its place in the log, null for what is not kept there. */
export interface Heard {
  readonly kind: 'message'
  readonly subject: string
  readonly seq: number | null
  readonly bytes: Uint8Array
}

/** Something was said that this tap did not hear. Records of the log are never missing: those are read again. */
export interface Gap {
  readonly kind: 'gap'
  readonly reason: string
}

/** From where on the log is read: a sequence number, or a time; null = from now on. */
export type Since = { readonly seq: number } | { readonly time: Date } | null

export interface TapOptions {
  /** Subjects after `visplay.{run}.`, with wildcards. */
  readonly filter: string
  readonly since: Since
  /** Goes on with what is said from now on; else ends where the log ends now. */
  readonly follow: boolean
  readonly signal: AbortSignal
}

const FAMILIES = ['task', 'log', 'live'] as const
type Family = (typeof FAMILIES)[number]

export class Tap {
  /** Where its blobs are, once one was asked for. */
  #files: Promise<BlobFiles | null> | null = null

  private constructor(
    private readonly connection: NatsConnection,
    private readonly js: JetStreamClient,
    private readonly access: Access,
    readonly run: string,
  ) {}

  /** Throws NatsServerError when the server is away, or has no such run. */
  static async open(access: Access, run: string): Promise<Tap> {
    const connection = await connectNats({ access, name: `visplay tap ${run}` })
    const js = jetstream(connection)
    try {
      await (await js.jetstreamManager()).streams.info(stores.log(run))
    } catch (cause) {
      await connection.close()
      throw new NatsServerError(`the NATS server at ${access.url} has no run "${run}"`, { cause })
    }
    return new Tap(connection, js, access, run)
  }

  /** Messages in the order in which they come; those of the log in the order of the log, each once. */
  async *listen({ filter, since, follow, signal }: TapOptions): AsyncGenerator<Heard | Gap> {
    const heard = new Channel<Heard | Gap>()
    const ends: (() => void)[] = [() => heard.end()]
    const end = () => ends.splice(0).forEach((stop) => stop())
    signal.addEventListener('abort', end, { once: true })
    const [inLog, elsewhere] = split(this.run, filter)
    try {
      if (follow) {
        void this.#noteGaps(heard)
        for (const subject of elsewhere) {
          const subscription = this.connection.subscribe(subject, {
            callback: (_, m) => heard.push({ kind: 'message', subject: m.subject, seq: null, bytes: m.data }),
          })
          ends.push(() => subscription.unsubscribe())
        }
      }
      if (inLog !== null && (follow || since !== null)) await this.#readLog(inLog, since, follow, heard, ends)
      else if (!follow) heard.end()
      if (signal.aborted) end()
      yield* heard
    } finally {
      signal.removeEventListener('abort', end)
      end()
    }
  }

  /** Verified bytes of a blob of the run. */
  async getBlob(name: string): Promise<Uint8Array> {
    const jsm = await this.js.jetstreamManager()
    this.#files ??= findFiles(jsm, this.run, this.access)
    this.#files.catch(() => (this.#files = null))
    const bytes = (await (await this.#files)?.read(name)) ?? (await this.#readFromServer(jsm, name))
    verifyBlob(name, bytes)
    return bytes
  }

  async #readFromServer(jsm: JetStreamManager, name: string): Promise<Uint8Array> {
    return readBlob({ objects: await new Objm(this.js).open(stores.blobs(this.run)), jsm }, name)
  }

  /** What waits in the work queues. */
  async queues(): Promise<Queue[]> {
    return queuesOf(await this.js.jetstreamManager(), this.run)
  }

  /** How many read the log at this moment. */
  async readers(): Promise<number> {
    const { state } = await (await this.js.jetstreamManager()).streams.info(stores.log(this.run))
    return state.consumer_count
  }

  /** Bytes of a value of the run, `head` or a document; null when there is none. */
  async value(key: string): Promise<Uint8Array | null> {
    const subject = `$KV.${stores.values(this.run)}.${keyOf(key)}`
    const jsm = await this.js.jetstreamManager()
    return (await jsm.direct.getMessage(`KV_${stores.values(this.run)}`, { last_by_subj: subject }))?.data ?? null
  }

  /** Past values of a key that are still known and the one that it has, oldest first. */
  async history(key: string): Promise<{ bytes: Uint8Array; revision: number }[]> {
    const values = await new Kvm(this.js).open(stores.values(this.run), { allow_direct: true })
    const entries: { bytes: Uint8Array; revision: number }[] = []
    for await (const { operation, value, revision } of await values.history({ key: keyOf(key) })) {
      if (operation === 'PUT') entries.push({ bytes: value, revision })
    }
    return entries
  }

  /** Records of the log, and how many there are of one event. */
  async counts(event: EventName): Promise<{ records: number; bytes: number; events: number }> {
    const filter = { subjects_filter: subjects.logsOf(this.run, event) }
    const { state } = await (await this.js.jetstreamManager()).streams.info(stores.log(this.run), filter)
    return { records: state.messages, bytes: state.bytes, events: Object.keys(state.subjects ?? {}).length }
  }

  close(): Promise<void> {
    return this.connection.close()
  }

  /** An ordered consumer: the client notices what the server skipped and asks for it again. */
  async #readLog(
    subject: string,
    since: Since,
    follow: boolean,
    heard: Channel<Heard | Gap>,
    ends: (() => void)[],
  ): Promise<void> {
    const consumer = await this.js.consumers.get(stores.log(this.run), {
      filter_subjects: subject,
      ...start(since),
    })
    const pending = (await consumer.info(true)).num_pending
    if (!follow && pending === 0) return heard.end()
    const messages = await consumer.consume({ max_messages: 500 })
    ends.push(() => messages.stop())
    void pump(messages, follow, heard)
  }

  async #noteGaps(heard: Channel<Heard | Gap>): Promise<void> {
    let lostAt = 0
    for await (const { type } of this.connection.status()) {
      if (type === 'disconnect') lostAt = Date.now()
      if (type === 'slowConsumer') heard.push({ kind: 'gap', reason: 'too slow: the server left messages out' })
      if (type === 'reconnect') {
        const seconds = ((Date.now() - lostAt) / 1000).toFixed(1)
        heard.push({ kind: 'gap', reason: `no connection for ${seconds} s: tasks and live messages are missing` })
      }
    }
  }
}

async function pump(messages: ConsumerMessages, follow: boolean, heard: Channel<Heard | Gap>): Promise<void> {
  try {
    for await (const message of messages) {
      heard.push({ kind: 'message', subject: message.subject, seq: message.seq, bytes: message.data })
      if (!follow && message.info.pending === 0) return heard.end()
    }
  } catch (error) {
    heard.fail(error)
  }
}

function start(since: Since) {
  if (since === null) return { deliver_policy: DeliverPolicy.New }
  if ('seq' in since) return { deliver_policy: DeliverPolicy.StartSequence, opt_start_seq: Math.max(1, since.seq) }
  return { deliver_policy: DeliverPolicy.StartTime, opt_start_time: since.time.toISOString() }
}

/** Subjects of a filter: the one in the log, and those that are not kept. `*` as its first token means every family. */
function split(run: string, filter: string): [log: string | null, elsewhere: string[]] {
  const [first, ...rest] = filter.split('.')
  const wanted: readonly Family[] = first === '>' || first === '*' ? FAMILIES : FAMILIES.filter((f) => f === first)
  const tail = rest.length === 0 ? '>' : rest.join('.')
  const subject = (family: Family) => `${subjects.all(run).slice(0, -1)}${family}.${tail}`
  return [wanted.includes('log') ? subject('log') : null, wanted.filter((f) => f !== 'log').map(subject)]
}
