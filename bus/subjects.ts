/** Every subject and store name of a run, built here and nowhere else. A token is an id: `[A-Za-z0-9_-]+`. */
import { MessageError } from './errors.ts'
import { idSchema, type EventName, type LiveKind, type TaskKind } from './messages.ts'

/** Throws MessageError unless `value` can be a token of a subject. */
function token(value: string, what: string): string {
  if (!idSchema.safeParse(value).success) {
    throw new MessageError(`visplay.… ${what}`, `"${value}" cannot be part of a subject: ids match [A-Za-z0-9_-]+`)
  }
  return value
}

/** A sender is `role.instance`. */
function sender(by: string): string {
  const [role, instance, ...rest] = by.split('.')
  if (role === undefined || instance === undefined || rest.length > 0) {
    throw new MessageError('visplay.…', `sender "${by}" is not role.instance, such as questioner.host-1`)
  }
  return `${token(role, 'role')}.${token(instance, 'instance')}`
}

export const subjects = {
  /** All of a run, for taps. */
  all: (run: string) => `visplay.${token(run, 'run')}.>`,
  task: (run: string, kind: TaskKind, id: string) => `visplay.${token(run, 'run')}.task.${kind}.${token(id, 'id')}`,
  tasks: (run: string) => `visplay.${token(run, 'run')}.task.>`,
  tasksOf: (run: string, kind: TaskKind) => `visplay.${token(run, 'run')}.task.${kind}.*`,
  log: (run: string, event: EventName, id: string) => `visplay.${token(run, 'run')}.log.${event}.${token(id, 'id')}`,
  logs: (run: string) => `visplay.${token(run, 'run')}.log.>`,
  logsOf: (run: string, event: EventName) => `visplay.${token(run, 'run')}.log.${event}.*`,
  live: (run: string, by: string, kind: LiveKind) => `visplay.${token(run, 'run')}.live.${sender(by)}.${kind}`,
  livesOf: (run: string, kind: LiveKind) => `visplay.${token(run, 'run')}.live.*.*.${kind}`,
} as const

/** Names of a run's streams, bucket and object store. */
export const stores = {
  tasks: (run: string) => `VISPLAY_${token(run, 'run')}_TASKS`,
  log: (run: string) => `VISPLAY_${token(run, 'run')}_LOG`,
  values: (run: string) => `VISPLAY_${token(run, 'run')}`,
  blobs: (run: string) => `VISPLAY_${token(run, 'run')}_BLOBS`,
} as const

/** The id of the `dead` event of a task: a kind has a dot, which an id has not. */
export const deadId = (kind: TaskKind, id: string): string => `${kind.replace('.', '-')}-${id}`

/** The id of the `retried` event of a task, and of the `dead` event if that attempt fails as well. */
export const retriedId = (kind: TaskKind, id: string, attempt: number): string => `${deadId(kind, id)}-r${attempt}`

/** Key of the version pointer. */
export const HEAD_KEY = 'head'

/** `key` itself; throws MessageError unless it is ids joined by dots. */
export function keyOf(key: string): string {
  for (const part of key.split('.')) token(part, 'key')
  return key
}
