/**
 * Optimizer: waits until a step is judged, computes its update, commits the next version by compare-and-set, records it.
 * Holds the trainable weights and the optimizer state, nothing else. A lease elects one of several Optimizers; the others
 * stand by. What decides is the compare-and-set: who takes over raises the epoch and moves the head, so that a leader
 * that was frozen cannot commit any more.
 */
import { assign, fromCallback, fromPromise, setup, type CallbackActorLogic, type EventObject } from 'xstate'
import { whileHeld, type Holder } from './lease.ts'
import { type Ports } from './ports.ts'
import { effect, unprovided, unprovidedJob } from './unprovided.ts'
import { runActor, type RunActor } from './run-actor.ts'
import { TrainingJob, type Commit, type OptimizerOptions } from './training-job.ts'

export interface OptimizerContext {
  /** Committed version; the step under way is the next one. */
  readonly version: number
  readonly epoch: number
  readonly steps: number
  readonly failures: number
  /** Holds the lease, as far as it knows. */
  readonly leading: boolean
}

/** Key of the lease. */
export const OPTIMIZER_LEASE = 'lease.optimizer'

export interface Election {
  readonly me: Holder
  /** Takes over at once from an Optimizer that leads; else waits until it leaves or is silent for too long. */
  readonly preempt: boolean
}

export const optimizerMachine = setup({
  types: {
    context: {} as OptimizerContext,
    events: {} as { type: 'stop' } | { type: 'lead' } | { type: 'lost' },
    input: {} as { readonly steps: number },
  },
  actors: {
    /** Sends `lead` when this Optimizer is elected, `lost` when it is not any more. */
    elect: fromCallback<EventObject>(() => {}),
    /** Keeps the book of the log. */
    follow: unprovidedJob<unknown>('follow'),
    /** Takes over the committed version, or commits version 0. */
    restore: unprovided<{ version: number; epoch: number }, unknown>('restore'),
    /** Waits until every question of a step has its verdict or was given up. */
    collect: unprovidedJob<{ step: number }>('collect'),
    /** Computes the update. */
    update: unprovidedJob<{ step: number }>('update'),
    /** Stores the version and moves the head. */
    commit: unprovided<Commit, { step: number; epoch: number }>('commit'),
    /** Appends what happened to the log and removes what is no longer needed. */
    record: unprovidedJob<{ step: number }>('record'),
  },
  actions: { warn: effect<{ error: unknown }>() },
  guards: { finished: ({ context }) => context.version >= context.steps },
  delays: { backoff: ({ context }) => Math.min(10_000, 250 * 2 ** context.failures) },
}).createMachine({
  id: 'optimizer',
  context: ({ input }) => ({ version: 0, epoch: 0, steps: input.steps, failures: 0, leading: false }),
  invoke: [
    { id: 'follow', src: 'follow' },
    { id: 'elect', src: 'elect' },
  ],
  on: { stop: '.stopped', lost: { target: '.standby', actions: assign({ leading: false }) } },
  initial: 'standby',
  states: {
    /** Another one leads, or nobody is elected yet. */
    standby: { on: { lead: { target: 'restoring', actions: assign({ leading: true, failures: 0 }) } } },
    restoring: {
      invoke: {
        src: 'restore',
        onDone: { target: 'ready', actions: assign(({ event }) => event.output) },
        onError: 'failed',
      },
    },
    ready: { always: [{ guard: 'finished', target: 'finished' }, { target: 'collecting' }] },
    collecting: {
      invoke: {
        src: 'collect',
        input: ({ context }) => ({ step: context.version + 1 }),
        onDone: 'updating',
        onError: 'failed',
      },
    },
    updating: {
      invoke: {
        src: 'update',
        input: ({ context }) => ({ step: context.version + 1 }),
        onDone: 'committing',
        onError: 'failed',
      },
    },
    committing: {
      invoke: {
        src: 'commit',
        input: ({ context }) => ({ step: context.version + 1, epoch: context.epoch }),
        onDone: [
          // Somebody else has moved the head. Who still holds the lease takes over again.
          { guard: ({ event }) => event.output === 'superseded', target: 'failed' },
          { target: 'recording', actions: assign({ version: ({ context }) => context.version + 1, failures: 0 }) },
        ],
        onError: 'failed',
      },
    },
    recording: {
      invoke: {
        src: 'record',
        input: ({ context }) => ({ step: context.version }),
        onDone: 'ready',
        onError: 'failed',
      },
    },
    /** Begins again from the committed version, which is always a safe place to begin. */
    failed: {
      entry: [
        {
          type: 'warn',
          params: ({ event }) => ({
            error: 'error' in event ? event.error : new Error('another Optimizer moved the head'),
          }),
        },
        assign({ failures: ({ context }) => context.failures + 1 }),
      ],
      after: { backoff: 'restoring' },
    },
    finished: { type: 'final' },
    stopped: { type: 'final' },
  },
})

/** Starts an Optimizer on a bus. */
export function optimizer(ports: Ports, options: OptimizerOptions & { readonly election: Election }): RunActor {
  const job = new TrainingJob(ports, options)
  const follow = ports.following(['questions', 'answers', 'verdict', 'dead', 'retried'], (record) =>
    job.book.apply(record),
  )
  const machine = optimizerMachine.provide({
    actors: {
      follow,
      elect: elect(ports, options.election),
      restore: fromPromise(() => job.restore()),
      collect: fromPromise(({ input, signal }) => job.collect(input.step, signal)),
      update: fromPromise(({ input, signal }) => job.update(input.step, signal)),
      commit: fromPromise(({ input }) => job.commit(input.step, input.epoch)),
      record: fromPromise(({ input }) => job.record(input.step)),
    },
    actions: { warn: (_, { error }) => ports.warn('the Optimizer begins again from the committed version', error) },
  })
  return runActor('optimizer', machine, ports, {
    weights: () => job.version,
    input: { steps: options.steps },
  })
}

function elect(ports: Ports, election: Election): CallbackActorLogic<EventObject> {
  return fromCallback<EventObject>(({ sendBack }) => {
    const controller = new AbortController()
    const { signal } = controller
    const lease = { bus: ports.bus, clock: ports.clock, key: OPTIMIZER_LEASE, ...election }
    const lead = async (held: AbortSignal): Promise<void> => {
      sendBack({ type: 'lead' })
      await new Promise((resolve) => held.addEventListener('abort', resolve, { once: true }))
      if (!signal.aborted) sendBack({ type: 'lost' })
    }
    ports.finishing(ports.persist('the election of an Optimizer', signal, () => whileHeld(lease, signal, lead)))
    return () => controller.abort()
  })
}
