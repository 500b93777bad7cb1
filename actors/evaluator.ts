/** Evaluator: measures committed versions on held-out questions, through ordinary requests pinned to the version. */
import { assign, fromCallback, fromPromise, setup, type EventObject } from 'xstate'
import type { EvalQuestion } from './eval-set.ts'
import { HeldOut, type HeldOutOptions } from './held-out.ts'
import { evalId } from './ids.ts'
import { type Ports } from './ports.ts'
import { effect, unprovidedJob } from './unprovided.ts'
import { runActor, type RunActor } from './run-actor.ts'
import { scoreAnswers } from './scoring.ts'

export interface EvalSet {
  readonly name: string
  readonly questions: readonly EvalQuestion[]
}

export interface EvaluatorOptions extends HeldOutOptions {
  /** Measured whole before and after the run; probes look at the first one only. */
  readonly sets: readonly EvalSet[]
  /** Steps between probes. */
  readonly every: number
  /** Questions of a probe, spread evenly over the set. */
  readonly probe: number
  /** Last version of the run. */
  readonly steps: number
}

/** `whole`: every question of every set, else a probe. */
export interface Measurement {
  readonly version: number
  readonly whole: boolean
}

export interface EvaluatorContext {
  readonly waiting: readonly Measurement[]
  /** Last version of the run. */
  readonly steps: number
  readonly every: number
}

export type EvaluatorEvent =
  { type: 'version'; version: number } | { type: 'measure'; measurement: Measurement } | { type: 'stop' }

export const evaluatorMachine = setup({
  types: {
    context: {} as EvaluatorContext,
    events: {} as EvaluatorEvent,
    input: {} as { readonly steps: number; readonly every: number },
  },
  actors: {
    /** Sends `version` for every committed version. */
    follow: fromCallback<EventObject>(() => {}),
    /** Measures and appends the result to the log. */
    measure: unprovidedJob<Measurement>('measure'),
  },
  actions: { warn: effect<{ error: unknown }>() },
  guards: { waiting: ({ context }) => context.waiting.length > 0 },
  delays: { backoff: 2_000 },
}).createMachine({
  id: 'evaluator',
  context: ({ input }) => ({ waiting: [], ...input }),
  invoke: { id: 'follow', src: 'follow' },
  on: {
    version: {
      guard: ({ context, event }) => isDue(event.version, context),
      actions: assign({
        waiting: ({ context, event }) => [
          ...context.waiting,
          { version: event.version, whole: event.version === 0 || event.version === context.steps },
        ],
      }),
    },
    measure: { actions: assign({ waiting: ({ context, event }) => [...context.waiting, event.measurement] }) },
    stop: '.stopped',
  },
  initial: 'waiting',
  states: {
    waiting: { always: { guard: 'waiting', target: 'measuring' } },
    measuring: {
      invoke: {
        src: 'measure',
        input: ({ context }) => context.waiting[0]!,
        onDone: { target: 'waiting', actions: assign({ waiting: ({ context }) => context.waiting.slice(1) }) },
        onError: {
          target: 'failed',
          actions: { type: 'warn', params: ({ event }) => ({ error: event.error }) },
        },
      },
    },
    failed: { after: { backoff: 'waiting' } },
    stopped: { type: 'final' },
  },
})

/** Versions that are measured; their weights must be kept. */
export function isDue(version: number, { every, steps }: { readonly every: number; readonly steps: number }): boolean {
  return version === 0 || version === steps || version % every === 0
}

export interface Evaluator extends RunActor {
  /** Asks for all questions of all sets at a version, for example the best one of a run that was stopped. */
  measure(version: number): void
}

/** Starts an Evaluator on a bus. */
export function evaluator(ports: Ports, options: EvaluatorOptions): Evaluator {
  const { steps, every } = options
  const heldOut = new HeldOut(ports, options)
  const machine = evaluatorMachine.provide({
    actors: {
      follow: ports.sending(['version'], ({ message }) => ({ type: 'version', version: message.data.weights })),
      measure: fromPromise(({ input, signal }) => measure(ports, heldOut, options, input, signal)),
    },
    actions: { warn: (_, { error }) => ports.warn('measuring held-out accuracy', error) },
  })
  const actor = runActor('evaluator', machine, ports, { input: { steps, every } })
  return {
    ...actor,
    measure: (version) => {
      const event: EvaluatorEvent = { type: 'measure', measurement: { version, whole: true } }
      actor.send(event)
    },
  }
}

async function measure(
  ports: Ports,
  heldOut: HeldOut,
  { sets, probe }: EvaluatorOptions,
  { version, whole }: Measurement,
  signal: AbortSignal,
): Promise<void> {
  for (const [i, { name, questions }] of sets.entries()) {
    const reports = [...(whole ? [{ id: evalId(version, name), asProbe: false }] : [])]
    if (i === 0) reports.push({ id: evalId(version, `${name}-probe`), asProbe: true })
    const known = await Promise.all(reports.map(({ id }) => ports.bus.find('eval', id)))
    if (known.every((record) => record !== null)) continue
    const isProbe = (index: number) => isSpread(index, questions.length, probe)
    const asked = whole ? questions : questions.filter((_, index) => isProbe(index))
    const answered = await heldOut.ask(version, whole ? name : `${name}-probe`, asked, signal)
    for (const { id, asProbe } of reports) {
      const scored = scoreAnswers(asProbe && whole ? answered.filter((_, index) => isProbe(index)) : answered)
      const { n, mean1, greedy, maj, byType } = scored
      await ports.bus.append('eval', id, { weights: version, set: name, n, mean1, greedy, maj, byType, probe: asProbe })
    }
  }
}

/** Whether `index` is one of `some` indices spread evenly over `all`. */
function isSpread(index: number, all: number, some: number): boolean {
  if (some >= all) return true
  return Math.floor(((index + 1) * some) / all) > Math.floor((index * some) / all)
}
