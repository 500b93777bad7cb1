/**
 * The connection of a process for blobs alone. What is large must not hold up what is urgent: on a slow line an adapter
 * takes longer than the time in which the server wants to hear that a task is being worked on.
 */
import {
  jetstream,
  jetstreamManager,
  StorageType,
  type JetStreamClient,
  type JetStreamManager,
} from '@nats-io/jetstream'
import type { NatsConnection } from '@nats-io/nats-core'
import { Objm, setSha256Backend, type ObjectStore } from '@nats-io/obj'
import { stores } from '../subjects.ts'
import { Link } from './link.ts'
import { makesStores } from './roles.ts'
import { REQUEST_MS, type Shared } from './shared.ts'
import { Turns } from './turns.ts'

export interface BlobLink extends Pick<Shared, 'run' | 'patienceMs'> {
  readonly js: JetStreamClient
  readonly jsm: JetStreamManager
  readonly objects: ObjectStore
  readonly link: Link
  readonly turns: Turns
}

/** Opens the object store of a run over a connection of its own; its owner makes it if it does not exist. */
export async function openBlobLink(
  connection: NatsConnection,
  { run, patienceMs }: Pick<Shared, 'run' | 'patienceMs'>,
  user: string | null,
): Promise<BlobLink> {
  // Several times faster than the default in JavaScript.
  setSha256Backend('native')
  const timeout = Math.min(REQUEST_MS, patienceMs)
  const js = jetstream(connection, { timeout })
  const name = stores.blobs(run)
  const [jsm, objects] = await Promise.all([
    jetstreamManager(connection, { timeout }),
    makesStores(user) ? new Objm(js).create(name, { storage: StorageType.File }) : new Objm(js).open(name),
  ])
  return { run, patienceMs, js, jsm, objects, link: new Link(connection), turns: new Turns() }
}
