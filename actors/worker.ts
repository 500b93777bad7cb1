/**
 * The machine that every pulling actor shares: takes tasks as credit allows, one supervised actor for each, and settles
 * a task when its actor ends. One that fails does not harm the others: its task comes back later.
 */
import {
  assign,
  createActor,
  fromCallback,
  fromPromise,
  setup,
  type AnyActorLogic,
  type AnyActorRef,
  type CallbackActorLogic,
  type EventObject,
  type PromiseActorLogic,
} from 'xstate'
import type { TaskKind } from '../bus/messages.ts'
import { type Ports } from './ports.ts'
import { effect } from './unprovided.ts'

export interface WorkerContext {
  readonly inFlight: number
  readonly done: number
  readonly failed: number
}

export type WorkerEvent =
  | { type: 'task.begun' }
  | { type: 'task.done'; key: string }
  | { type: 'task.failed'; key: string; error: unknown }
  | { type: 'stop' }

export const workerMachine = setup({
  types: { context: {} as WorkerContext, events: {} as WorkerEvent },
  actors: {
    /** Takes tasks and starts an actor for each; sends `task.begun`, then `task.done` or `task.failed`. */
    crew: fromCallback<EventObject>(() => {}),
    /** What the actor keeps an eye on besides its tasks. */
    follow: fromPromise((): Promise<void> => Promise.resolve()),
  },
  actions: {
    ack: effect<{ key: string }>(),
    giveBack: effect<{ key: string; error: unknown }>(),
  },
}).createMachine({
  id: 'worker',
  context: { inFlight: 0, done: 0, failed: 0 },
  initial: 'working',
  invoke: { id: 'follow', src: 'follow' },
  on: { stop: '.stopped' },
  states: {
    working: {
      invoke: { id: 'crew', src: 'crew' },
      on: {
        'task.begun': { actions: assign({ inFlight: ({ context }) => context.inFlight + 1 }) },
        'task.done': {
          actions: [
            { type: 'ack', params: ({ event }) => ({ key: event.key }) },
            assign({ inFlight: ({ context }) => context.inFlight - 1, done: ({ context }) => context.done + 1 }),
          ],
        },
        'task.failed': {
          actions: [
            { type: 'giveBack', params: ({ event }) => ({ key: event.key, error: event.error }) },
            assign({ inFlight: ({ context }) => context.inFlight - 1, failed: ({ context }) => context.failed + 1 }),
          ],
        },
      },
    },
    stopped: { type: 'final' },
  },
})

/** The worker machine of one kind of task, bound to its ports. `task` is the logic of one task, input `{task}`. */
export function bindWorker(
  ports: Ports,
  kind: TaskKind,
  credit: number,
  task: AnyActorLogic,
  follow: PromiseActorLogic<void> = fromPromise(() => Promise.resolve()),
) {
  return workerMachine.provide({
    actors: { crew: crew(ports, kind, credit, task), follow },
    actions: {
      ack: (_, { key }) => ports.ack(key),
      giveBack: (_, { key, error }) => ports.giveBack(key, error),
    },
  })
}

/**
 * One actor per task. They are no children of the machine, because XState copies the list of children whenever one
 * comes or goes: with hundreds in flight that is most of the work.
 */
function crew(ports: Ports, kind: TaskKind, credit: number, logic: AnyActorLogic): CallbackActorLogic<EventObject> {
  return fromCallback<EventObject, unknown>(({ sendBack }) => {
    const send: (event: WorkerEvent) => void = sendBack
    const members = new Map<string, AnyActorRef>()
    const stopTaking = ports.take([{ kind, credit }], (task) => {
      const { key } = task
      const member = createActor(logic, { input: { task }, clock: ports.clock })
      members.set(key, member)
      member.subscribe({
        complete: () => members.delete(key) && send({ type: 'task.done', key }),
        error: (error) => members.delete(key) && send({ type: 'task.failed', key, error }),
      })
      send({ type: 'task.begun' })
      member.start()
    })
    return () => {
      stopTaking()
      const left = [...members.values()]
      members.clear()
      for (const member of left) member.stop()
    }
  })
}
