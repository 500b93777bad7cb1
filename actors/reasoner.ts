/** Reasoner: from a question about an image to a group of answers. */
import { assign, fromPromise, setup } from 'xstate'
import type { EventData } from '../bus/messages.ts'
import { answerId, cohortId } from './ids.ts'
import { type Ports, type TaskRef } from './ports.ts'
import { unprovided, unprovidedJob } from './unprovided.ts'
import { extractAnswer } from './rewards/normalize.ts'
import { runActor, type RunActor } from './run-actor.ts'
import { StepBook } from './step-book.ts'
import { bindWorker } from './worker.ts'

type QuestionTask = TaskRef<'reasoner.question'>
type Answers = EventData<'answers'>

export interface ReasonerOptions {
  /** User text of the role, after the image; `{question}` is replaced. */
  readonly prompt: string
  /** Completions of each question. */
  readonly answers: number
  readonly maxNewTokens: number
  readonly temperature: number
  readonly seed: number
  /** Images of a step, assumed until the log says it. */
  readonly images: number
  /** Questions in flight. */
  readonly credit?: number
}

/** One question: asking → publishing → done; at once done when its step is committed already. */
export const answerTask = setup({
  types: {
    context: {} as { readonly task: QuestionTask; readonly answers: Answers | null },
    input: {} as { readonly task: QuestionTask },
  },
  actors: {
    /** Samples completions and parses them, together with all questions of the step; null for a past step. */
    ask: unprovided<Answers | null, { task: QuestionTask }>('ask'),
    /** Appends the answers, then hands the group to the Judge. */
    publish: unprovidedJob<{ task: QuestionTask; answers: Answers }>('publish'),
  },
}).createMachine({
  id: 'answer',
  context: ({ input }) => ({ task: input.task, answers: null }),
  initial: 'asking',
  states: {
    asking: {
      invoke: {
        src: 'ask',
        input: ({ context }) => ({ task: context.task }),
        onDone: [
          { guard: ({ event }) => event.output === null, target: 'done' },
          { target: 'publishing', actions: assign({ answers: ({ event }) => event.output }) },
        ],
      },
    },
    publishing: {
      invoke: {
        src: 'publish',
        input: ({ context }) => ({ task: context.task, answers: context.answers! }),
        onDone: 'done',
      },
    },
    done: { type: 'final' },
  },
})

/** Starts a Reasoner on a bus. */
export function reasoner(ports: Ports, options: ReasonerOptions): RunActor {
  const book = new StepBook(options.images)
  const task = answerTask.provide({
    actors: {
      ask: fromPromise(({ input, signal }) => ask(ports, book, options, input.task, signal)),
      publish: fromPromise(async ({ input }) => {
        await ports.bus.append('answers', input.task.id, input.answers, input.task)
        await forward(ports, input.task)
      }),
    },
  })
  const follow = ports.following(['questions', 'dead', 'retried', 'version'], (record) => book.apply(record))
  const machine = bindWorker(ports, 'reasoner.question', options.credit ?? 512, task, follow)
  return runActor('reasoner', machine, ports)
}

async function ask(
  ports: Ports,
  book: StepBook,
  options: ReasonerOptions,
  task: QuestionTask,
  signal: AbortSignal,
): Promise<Answers | null> {
  const batch = await book.when(task.data.step, 'asked', signal)
  if (batch === null) return null
  const { step, group, image, question, minWeights } = task.data
  const { answers, maxNewTokens, temperature, seed } = options
  const prompt = options.prompt.replaceAll('{question}', () => question)
  const request = {
    image,
    prompt,
    samples: answers,
    maxNewTokens,
    temperature,
    seed,
    minWeights,
    // All questions of the step share a forward pass.
    cohort: { id: cohortId('answer', step), size: batch.wellFormed },
    weights: null,
    rollout: true,
  }
  const again = task.deliveries > 1
  const reply = await ports.request('model.generate', answerId(task.id), request, { parent: task, signal, again })
  const { weights, completions } = reply.message.data
  return { step, group, image, prompt, weights, completions, parsed: completions.map(extractAnswer) }
}

/** Image task that a group belongs to. */
const questionsId = (group: string): string => group.replace(/-q\d+$/, '')

async function forward(ports: Ports, task: QuestionTask): Promise<void> {
  const { step, group } = task.data
  await ports.bus.publish('judge.group', group, { step, group, questions: questionsId(group), answers: group }, task)
}
