/** Tasks that a run has given up, and putting them on the queue again. */
import { stepOf } from '../../actors/ids.ts'
import type { Bus } from '../../bus/bus.ts'
import { parseEnvelope } from '../../bus/codec.ts'
import { taskSchemas, type TaskKind } from '../../bus/messages.ts'
import { deadId, subjects } from '../../bus/subjects.ts'

export interface DeadTask {
  /** Names the task in `dead show` and `dead retry`. */
  readonly name: string
  readonly kind: string
  readonly id: string
  readonly cause: string
  readonly deliveries: number
  readonly at: string
  /** Who gave it up. */
  readonly by: string
  /** `dead`: nobody works on it; `retried`: on the queue again; `past`: its step is committed, so nobody waits for it. */
  readonly state: 'dead' | 'retried' | 'past'
  readonly task: string | null
}

/** In the order in which they were given up. */
export async function deadTasks(bus: Bus): Promise<DeadTask[]> {
  const version = (await bus.getHead())?.head.version ?? 0
  const tasks = new Map<string, DeadTask>()
  const signal = new AbortController().signal
  for await (const { event, message } of bus.read(['dead', 'retried'], { follow: false, signal })) {
    const { kind, id } = message.data
    const name = deadId(kind as TaskKind, id)
    const known = tasks.get(name)
    if (event === 'retried') {
      if (known) tasks.set(name, { ...known, state: 'retried' })
      continue
    }
    const { cause, deliveries, task = null } = message.data
    const past = (stepOf(id) ?? Infinity) <= version
    const { at, by } = message
    tasks.set(name, { name, kind, id, cause, deliveries, at, by, state: past ? 'past' : 'dead', task })
  }
  return [...tasks.values()]
}

/** The message of the task; null when it was not kept. */
export async function taskOf(bus: Bus, { kind, id, task }: DeadTask): Promise<unknown> {
  if (task === null) return null
  const bytes = await bus.getBlob(task)
  try {
    return parseEnvelope(bytes, subjects.task(bus.run, kind as TaskKind, id))
  } catch {
    // It was given up because it is no message: shown as it is.
    return Buffer.from(bytes).toString('utf8')
  }
}

/** Why a task cannot be retried; null when it can. */
export function notRetriable({ name, kind, state, task }: DeadTask): string | null {
  if (state === 'past') return `${name}: its step is committed, nobody waits for it any more`
  if (state === 'retried') return `${name} is on the queue again already`
  if (!(kind in taskSchemas) || task === null) return `${name}: its message was not kept`
  return null
}

export const retry = (bus: Bus, { kind, id }: DeadTask): Promise<void> => bus.retry(kind as TaskKind, id)
