/**
 * Who may do what on the server of a run: a tap reads, a worker works, an Optimizer also moves the head, the owner does
 * everything.
 */
import type { EventName } from '../messages.ts'
import { HEAD_KEY, stores } from '../subjects.ts'

export const BUS_ROLES = ['owner', 'optimizer', 'worker', 'tap'] as const
export type BusRole = (typeof BUS_ROLES)[number]

/** Who owns a run, or a server that knows no roles, makes what is not there; others may not, and need not. */
export const makesStores = (user: string | null): boolean => !isBusRole(user) || user === 'owner'

export const isBusRole = (user: string | null): user is BusRole => BUS_ROLES.some((role) => role === user)

/** Subjects that a role may use. */
export interface Permissions {
  readonly publish: readonly string[]
  readonly subscribe: readonly string[]
}

/** Where answers to a user go: nobody else may listen there. */
export const inboxOf = (user: string): string => `_INBOX.${user}`

/** Events that workers, actors of the user's among them, may append. */
const WORKERS_EVENTS: readonly EventName[] = [
  'questions',
  'answers',
  'verdict',
  'generated',
  'logprobs',
  'gradient',
  'remark',
  'dead',
  'retried',
  'alarm',
]

/** null = everything. */
export function permissionsOf(role: BusRole, run: string): Permissions | null {
  if (role === 'owner') return null
  const listen = [`visplay.${run}.>`, `${inboxOf(role)}.>`]
  const reading = { publish: [...readApi(run)], subscribe: listen }
  if (role === 'tap') return reading
  const working = [...reading.publish, ...workApi(run)]
  if (role === 'worker') return { publish: working, subscribe: listen }
  return { publish: [...working, ...optimizerApi(run)], subscribe: listen }
}

/** What the client library asks to read streams, values and objects. */
function readApi(run: string): string[] {
  const api = '$JS.API'
  const log = stores.log(run)
  const values = `KV_${stores.values(run)}`
  const objects = `OBJ_${stores.blobs(run)}`
  const read = [log, values, objects]
  return [
    `${api}.INFO`,
    `${api}.STREAM.NAMES`,
    ...[stores.tasks(run), ...read].map((stream) => `${api}.STREAM.INFO.${stream}`),
    ...read.flatMap((stream) => [`${api}.DIRECT.GET.${stream}`, `${api}.DIRECT.GET.${stream}.>`]),
    ...read.map((stream) => `${api}.STREAM.MSG.GET.${stream}`),
    // Ordered consumers of the log and of watched values: of one's own, under names that nobody can guess.
    ...[log, values].flatMap((stream) => [
      `${api}.CONSUMER.CREATE.${stream}`,
      `${api}.CONSUMER.CREATE.${stream}.>`,
      `${api}.CONSUMER.INFO.${stream}.*`,
      `${api}.CONSUMER.DELETE.${stream}.*`,
      `${api}.CONSUMER.MSG.NEXT.${stream}.*`,
    ]),
    `${api}.CONSUMER.LIST.${stores.tasks(run)}`,
    '$JS.FC.>',
  ]
}

function workApi(run: string): string[] {
  const tasks = stores.tasks(run)
  return [
    `visplay.${run}.task.>`,
    `visplay.${run}.live.>`,
    ...WORKERS_EVENTS.map((event) => `visplay.${run}.log.${event}.*`),
    `$JS.API.CONSUMER.CREATE.${tasks}.>`,
    `$JS.API.CONSUMER.INFO.${tasks}.*`,
    `$JS.API.CONSUMER.MSG.NEXT.${tasks}.*`,
    `$JS.ACK.${tasks}.>`,
    `$KV.${stores.values(run)}.claim.>`,
    `$O.${stores.blobs(run)}.>`,
  ]
}

function optimizerApi(run: string): string[] {
  const values = stores.values(run)
  const log = (event: EventName) => `visplay.${run}.log.${event}.*`
  return [
    `$KV.${values}.${HEAD_KEY}`,
    `$KV.${values}.lease.>`,
    ...(['version', 'step', 'dropped'] as const).map(log),
    // Blobs of versions that are not kept.
    `$JS.API.STREAM.PURGE.OBJ_${stores.blobs(run)}`,
  ]
}
