/**
 * Model actor: one per device. Owns the model, collects requests, runs them in batches, swaps versions between batches,
 * and stamps every reply with version, device and time.
 */
import { assign, fromCallback, fromPromise, sendTo, setup, type EventObject } from 'xstate'
import type { Model } from '../models/model.ts'
import { nextBatch, type Batch, type BatchLimits } from './batcher.ts'
import { versionId } from './ids.ts'
import { ModelServer, WeightsError, type Current, type ModelTask } from './model-server.ts'
import { causeOf, type HeadMoved, type Ports } from './ports.ts'
import { effect, unprovidedJob } from './unprovided.ts'
import { runActor, type RunActor } from './run-actor.ts'

export interface ModelActorOptions extends Partial<BatchLimits> {
  readonly model: Model
  /** How long an incomplete cohort waits for the rest of it after the last arrival. */
  readonly windowMs?: number
  /** Requests held at once; more than the largest cohort. */
  readonly credit?: number
}

export interface ModelContext {
  readonly head: Current | null
  readonly batch: Batch | null
  readonly batches: number
  /** Batches in a row that could not be served. */
  readonly broken: number
}

export type ModelEvent = { type: 'task'; task: ModelTask } | { type: 'paused' } | HeadMoved | { type: 'stop' }

/** Requests that arrive together are looked at together. */
const GATHER_MS = 1
const BROKEN_MS = 1_000

const noBatch: (...args: readonly unknown[]) => Batch | null = () => null

export const modelMachine = setup({
  types: { context: {} as ModelContext, events: {} as ModelEvent },
  actors: {
    /** Sends `task` for every request, except between `pause`, which it answers with `paused`, and `resume`. */
    pull: fromCallback<EventObject>(() => {}),
    /** Sends `head` whenever a version is committed. */
    watchHead: fromCallback<EventObject>(() => {}),
    /** Runs one batch and replies. */
    serve: unprovidedJob<{ batch: Batch; head: Current }>('serve'),
    /** Loads the newest weights. */
    mend: unprovidedJob<{ head: Current }>('mend'),
  },
  actions: {
    hold: effect<{ task: ModelTask }>(),
    /** Gives back what is held. */
    release: effect<undefined>(),
    /** The newest weights did not load. */
    alarm: effect<{ error: unknown; version: number }>(),
    /** Sets `context.batch` to the next batch, if there is one. */
    plan: assign({ batch: (args, params: { readonly idle: boolean }) => noBatch(args, params) }),
  },
  delays: { gather: GATHER_MS, window: 50, broken: BROKEN_MS },
}).createMachine({
  id: 'model',
  context: { head: null, batch: null, batches: 0, broken: 0 },
  invoke: [
    { id: 'pull', src: 'pull' },
    { id: 'watchHead', src: 'watchHead' },
  ],
  on: {
    task: { actions: { type: 'hold', params: ({ event }) => ({ task: event.task }) } },
    head: { actions: assign({ head: ({ event }) => currentOf(event) }) },
    stop: '.stopped',
  },
  initial: 'idle',
  states: {
    idle: {
      on: {
        task: { target: 'gathering', actions: { type: 'hold', params: ({ event }) => ({ task: event.task }) } },
        head: { target: 'gathering', actions: assign({ head: ({ event }) => currentOf(event) }) },
      },
    },
    gathering: { after: { gather: 'planning' } },
    planning: {
      entry: { type: 'plan', params: { idle: false } },
      always: [{ guard: ({ context }) => context.batch !== null, target: 'serving' }, { target: 'lingering' }],
    },
    /** Something may wait, yet no cohort is complete. */
    lingering: {
      on: {
        task: { target: 'gathering', actions: { type: 'hold', params: ({ event }) => ({ task: event.task }) } },
        head: { target: 'gathering', actions: assign({ head: ({ event }) => currentOf(event) }) },
      },
      after: { window: 'flushing' },
    },
    flushing: {
      entry: { type: 'plan', params: { idle: true } },
      always: [{ guard: ({ context }) => context.batch !== null, target: 'serving' }, { target: 'idle' }],
    },
    serving: {
      invoke: {
        src: 'serve',
        input: ({ context }) => ({ batch: context.batch!, head: context.head! }),
        onDone: {
          target: 'planning',
          actions: assign({ batch: null, broken: 0, batches: ({ context }) => context.batches + 1 }),
        },
        onError: {
          target: 'broken',
          actions: [
            { type: 'alarm', params: ({ context, event }) => ({ error: event.error, version: context.head!.version }) },
            assign({ batch: null, broken: ({ context }) => context.broken + 1 }),
          ],
        },
      },
    },
    /**
     * The weights did not load: the model keeps those it has and serves nothing under a wrong version. Others, whose copy
     * is sound, get the work: without them there may never be a next version.
     */
    broken: {
      exit: sendTo('pull', { type: 'resume' }),
      // Only then: what is given back must not come back to this actor.
      on: { paused: { actions: 'release' } },
      initial: 'waiting',
      states: {
        waiting: { entry: sendTo('pull', { type: 'pause' }), after: { broken: 'mending' } },
        mending: {
          invoke: {
            src: 'mend',
            input: ({ context }) => ({ head: context.head! }),
            onDone: { target: '#model.planning', actions: assign({ broken: 0 }) },
            onError: {
              target: 'waiting',
              actions: {
                type: 'alarm',
                params: ({ context, event }) => ({ error: event.error, version: context.head!.version }),
              },
            },
          },
        },
      },
    },
    stopped: { type: 'final' },
  },
})

/** One alarm per version, whoever meets it first; each actor warns for itself. */
function alarm(ports: Ports, version: number, error: unknown): void {
  ports.warn('serving requests', error)
  if (!(error instanceof WeightsError)) return
  const message = `the weights of version ${version} do not load, the ones before them stay: ${causeOf(error.cause)}`
  const data = { step: version, name: 'bad-weights', message, value: version }
  ports.bus
    .append('alarm', `bad-weights-${versionId(version)}`, data)
    .catch((lost: unknown) => ports.warn('alarm', lost))
}

function currentOf({ entry: { head } }: HeadMoved): Current {
  return { version: head.version, adapter: head.adapter }
}

/** Starts a model actor on a bus. */
export function modelActor(ports: Ports, options: ModelActorOptions): RunActor {
  const { model, windowMs = 50, credit = 1024, maxRows = 8192 } = options
  const server = new ModelServer(ports, model)
  let version: number | null = null
  const machine = modelMachine.provide({
    actors: {
      pull: ports.pulling(
        { kind: 'model.generate', credit },
        { kind: 'model.logprobs', credit },
        { kind: 'model.gradient', credit },
      ),
      watchHead: ports.watchingHead(),
      serve: fromPromise(({ input }) => {
        // The newest: evaluations look back.
        version = Math.max(version ?? 0, input.batch.weights ?? input.head.version)
        return server.serve(input.batch, input.head)
      }),
      mend: fromPromise(({ input }) => server.load(input.head)),
    },
    actions: {
      hold: (_, { task }) => server.hold(task),
      release: () => server.release(),
      alarm: (_, { error, version: head }) => alarm(ports, head, error),
      plan: assign({
        batch: ({ context }, { idle }) => nextBatch(server.waiting(), context.head?.version ?? null, idle, { maxRows }),
      }),
    },
    delays: { window: windowMs },
  })
  return runActor('model', machine, ports, { weights: () => version })
}
