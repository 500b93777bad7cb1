/** Whether what a file exports is an actor: it comes from outside, so it is checked before anything is started. */
import { z } from 'zod'
import { eventSchemas, idSchema, taskSchemas, type EventName, type TaskKind } from '../../bus/messages.ts'
import type { OwnActor } from './define.ts'

const names = <T extends string>(table: Readonly<Record<T, unknown>>) => z.enum(Object.keys(table) as [T, ...T[]])
const kind = names<TaskKind>(taskSchemas)
const event = names<EventName>(eventSchemas)
const func = z.custom<(...args: never[]) => unknown>((value) => typeof value === 'function', 'must be a function')
const about = { role: idSchema, name: idSchema, version: z.string().min(1) }
const produces = z.array(z.union([kind, event]))

const schema = z.discriminatedUnion('kind', [
  z.object({ kind: z.literal('task'), ...about, consumes: kind, produces, handle: func }),
  z.object({ kind: z.literal('log'), ...about, consumes: z.array(event).min(1), produces, handle: func }),
  z.object({
    kind: z.literal('machine'),
    ...about,
    consumes: z.union([kind, z.array(event)]),
    produces,
    machine: func,
  }),
  z.object({ kind: z.literal('judge'), ...about, judge: func }),
])

/** Throws an error in one line that says what is wrong. */
export function checkActor(value: unknown): OwnActor {
  const isObject = typeof value === 'object' && value !== null && 'kind' in value
  if (!isObject) throw new TypeError('its default export is not made by defineActor or defineJudge of visplay/actor')
  const parsed = schema.safeParse(value)
  if (parsed.success) return value as unknown as OwnActor
  const { path, message } = parsed.error.issues[0]!
  throw new TypeError(`${path.join('.') || 'its default export'}: ${message}`)
}
