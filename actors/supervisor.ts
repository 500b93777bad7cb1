/** Supervisor: starts actors, starts those again that break, and makes given-up tasks visible as alarms. */
import { assign, enqueueActions, fromPromise, setup } from 'xstate'
import { stepOf } from './ids.ts'
import { type Ports } from './ports.ts'
import { effect, unprovidedJob } from './unprovided.ts'
import { runActor, type RunActor } from './run-actor.ts'

/** Starts an actor; called again after it broke. */
export type Starter = () => RunActor | Promise<RunActor>

export interface SupervisorContext {
  readonly restarts: Readonly<Record<string, number>>
}

type ChildEnded = { type: `xstate.done.actor.${string}`; actorId: string }
type ChildBroke = { type: `xstate.error.actor.${string}`; actorId: string; error: unknown }

export const supervisorMachine = setup({
  types: {
    context: {} as SupervisorContext,
    events: {} as ChildEnded | ChildBroke | { type: 'stop' },
    input: {} as { readonly names: readonly string[] },
  },
  actors: {
    /** Appends an alarm for every given-up task. */
    follow: unprovidedJob<unknown>('follow'),
    /** Starts an actor after a pause and lives as long as it does. */
    live: unprovidedJob<{ name: string; restarts: number }>('live'),
  },
  actions: { warn: effect<{ name: string; error: unknown }>() },
}).createMachine({
  id: 'supervisor',
  context: ({ input }) => ({ restarts: Object.fromEntries(input.names.map((name) => [name, 0])) }),
  invoke: { id: 'follow', src: 'follow' },
  entry: enqueueActions(({ enqueue, context }) => {
    for (const name of Object.keys(context.restarts)) {
      enqueue.spawnChild('live', { id: name, input: { name, restarts: 0 } })
    }
  }),
  on: {
    'xstate.done.actor.*': { actions: enqueueActions(({ enqueue, event }) => enqueue.stopChild(event.actorId)) },
    'xstate.error.actor.*': {
      actions: [
        { type: 'warn', params: ({ event }) => ({ name: event.actorId, error: event.error }) },
        assign({
          restarts: ({ context, event }) => ({
            ...context.restarts,
            [event.actorId]: (context.restarts[event.actorId] ?? 0) + 1,
          }),
        }),
        enqueueActions(({ enqueue, event, context }) => {
          const name = event.actorId
          enqueue.stopChild(name)
          enqueue.spawnChild('live', { id: name, input: { name, restarts: context.restarts[name]! } })
        }),
      ],
    },
    stop: '.stopped',
  },
  initial: 'watching',
  states: { watching: {}, stopped: { type: 'final' } },
})

/** Longest pause before an actor is started again. */
const MAX_PAUSE_MS = 30_000

/** Starts a Supervisor and, through it, the actors. Stopping it does not stop them: their owner does. */
export function supervisor(ports: Ports, starters: Readonly<Record<string, Starter>>): RunActor {
  const machine = supervisorMachine.provide({
    actors: {
      follow: ports.following(['dead'], async ({ id: record, message }) => {
        const { kind, id, cause, deliveries } = message.data
        const text = `${kind} ${id} was given up after ${deliveries} deliveries: ${cause}`
        const alarm = { step: stepOf(id) ?? 0, name: 'dead-task', message: text, value: deliveries }
        await ports.bus.append('alarm', record, alarm)
      }),
      live: fromPromise(async ({ input: { name, restarts }, signal }) => {
        if (restarts > 0) await ports.pause(Math.min(MAX_PAUSE_MS, 500 * 2 ** restarts), signal)
        if (signal.aborted) return
        await (
          await starters[name]!()
        ).done
      }),
    },
    actions: { warn: (_, { name, error }) => ports.warn(`${name} broke and is started again`, error) },
  })
  return runActor('supervisor', machine, ports, { input: { names: Object.keys(starters) } })
}
