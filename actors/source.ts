/** Source: issues the images of each step as soon as the weights are new enough for it. */
import { assign, fromCallback, fromPromise, setup, type EventObject } from 'xstate'
import type { Task } from '../bus/messages.ts'
import { imageTaskId, sliceId } from './ids.ts'
import { ImageOrder } from './permutation.ts'
import { type HeadMoved, type Ports } from './ports.ts'
import { effect, unprovided } from './unprovided.ts'
import { runActor, type RunActor } from './run-actor.ts'

/** An image of the run; `read` gives the bytes of its file. */
export interface RunImage {
  readonly name: string
  read(): Promise<Uint8Array>
}

export interface SourceOptions {
  readonly images: readonly RunImage[]
  /** Images of one step. */
  readonly perStep: number
  /** Images of one task. */
  readonly perTask: number
  readonly steps: number
  readonly seed: number
  /** Steps that may be sampled ahead of the weights; 0 = on-policy. */
  readonly maxLag: number
}

export interface SourceContext {
  /** Last step that was issued. */
  readonly issued: number
  /** Committed version. */
  readonly head: number
  readonly steps: number
  readonly maxLag: number
}

/** The last step that may be issued now. */
const reach = ({ head, steps, maxLag }: SourceContext): number => Math.min(steps, head + 1 + maxLag)

export const sourceMachine = setup({
  types: {
    context: {} as SourceContext,
    events: {} as HeadMoved | { type: 'stop' },
    input: {} as { readonly steps: number; readonly maxLag: number },
  },
  actors: {
    watchHead: fromCallback<EventObject>(() => {}),
    /** Issues the image tasks of steps `from` to `to`; gives `to`. */
    issue: unprovided<number, { from: number; to: number }>('issue'),
  },
  actions: { warn: effect<{ error: unknown }>() },
  guards: {
    finished: ({ context }) => context.issued >= context.steps,
    due: ({ context }) => context.head >= 0 && context.issued < reach(context),
  },
  delays: { backoff: 1_000 },
}).createMachine({
  id: 'source',
  context: ({ input }) => ({ issued: -1, head: -1, ...input }),
  invoke: { id: 'watchHead', src: 'watchHead' },
  on: {
    /** Steps up to the head are done: a resumed run begins after them. */
    head: {
      actions: assign({
        head: ({ event }) => event.entry.head.version,
        issued: ({ context, event }) => Math.max(context.issued, event.entry.head.version),
      }),
    },
    stop: '.stopped',
  },
  initial: 'watching',
  states: {
    watching: {
      always: [
        { guard: 'finished', target: 'finished' },
        { guard: 'due', target: 'issuing' },
      ],
    },
    issuing: {
      invoke: {
        src: 'issue',
        input: ({ context }) => ({ from: context.issued + 1, to: reach(context) }),
        onDone: { target: 'watching', actions: assign({ issued: ({ event }) => event.output }) },
        onError: {
          target: 'waiting',
          actions: { type: 'warn', params: ({ event }) => ({ error: event.error }) },
        },
      },
    },
    waiting: { after: { backoff: 'watching' } },
    finished: { type: 'final' },
    stopped: { type: 'final' },
  },
})

/** Starts a Source on a bus. */
export function source(ports: Ports, options: SourceOptions): RunActor {
  const issuer = new Issuer(ports, options)
  const machine = sourceMachine.provide({
    actors: {
      watchHead: ports.watchingHead(),
      issue: fromPromise(async ({ input }) => {
        for (let step = input.from; step <= input.to; step++) await issuer.issue(step)
        return input.to
      }),
    },
    actions: { warn: (_, { error }) => ports.warn('issuing image tasks', error) },
  })
  const { steps, maxLag } = options
  return runActor('source', machine, ports, { input: { steps, maxLag } })
}

class Issuer {
  readonly #ports: Ports
  readonly #options: SourceOptions
  readonly #order: ImageOrder
  /** Images that entered the run. */
  readonly #entered = new Map<number, Entered>()
  #resumed = true

  constructor(ports: Ports, options: SourceOptions) {
    this.#ports = ports
    this.#options = options
    this.#order = new ImageOrder(options.images.length, options.seed)
  }

  async issue(step: number): Promise<void> {
    const { perStep, perTask } = this.#options
    // The first step after a start may have been under way already.
    const again = this.#resumed
    const slices = Array.from({ length: Math.ceil(perStep / perTask) }, (_, i) => i * perTask)
    await Promise.all(
      slices.map((first) => this.#issueSlice(step, first, Math.min(first + perTask, perStep) - 1, again)),
    )
    this.#resumed = false
  }

  /** Issues the images `first` to `last` of a step; `again`: those about which nothing has been asked yet. */
  async #issueSlice(step: number, first: number, last: number, again: boolean): Promise<void> {
    const { bus } = this.#ports
    const { perStep, maxLag } = this.#options
    const slots = Array.from({ length: last - first + 1 }, (_, i) => this.#slot(step, first + i, again))
    const images = (await Promise.all(slots)).filter((slot) => slot !== null)
    if (images.length === 0) return
    const minWeights = Math.max(0, step - 1 - maxLag)
    const id = images.length === 1 ? images[0]!.id : sliceId(step, first, last)
    await bus.publish('questioner.images', id, { step, expects: perStep, minWeights, images })
  }

  async #slot(step: number, index: number, again: boolean): Promise<Slot | null> {
    const { blob, name } = await this.#enter(this.#order.at((step - 1) * this.#options.perStep + index))
    const id = imageTaskId(step, index)
    if (again && (await this.#ports.bus.find('questions', id))) return null
    return { id, index, image: blob, name }
  }

  /** Brings an image into the run; one whose file has become unreadable gives its place to the next, visibly. */
  async #enter(index: number): Promise<Entered> {
    const { images } = this.#options
    for (let offset = 0; offset < images.length; offset++) {
      const place = (index + offset) % images.length
      const known = this.#entered.get(place)
      if (known) return known
      const { name } = images[place]!
      const bytes = await images[place]!.read().catch((error: unknown) => {
        this.#ports.warn(`the image ${name} cannot be read any more; another one takes its place`, error)
        return null
      })
      if (!bytes) continue
      const blob = await this.#ports.bus.putBlob(bytes)
      await this.#ports.bus.append('image', blob, { image: blob, name, bytes: bytes.length })
      const entered = { blob, name }
      this.#entered.set(place, entered)
      return entered
    }
    throw new Error('none of the images can be read any more')
  }
}

type Slot = Task<'questioner.images'>['images'][number]

interface Entered {
  readonly blob: string
  readonly name: string
}
