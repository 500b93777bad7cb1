/** Reasoner: from questions about images to a group of answers each. */
import { assign, fromPromise, setup } from 'xstate'
import type { EventData } from '../bus/messages.ts'
import { answerId, cohortId, groupsId, imageOf } from './ids.ts'
import { type Ports, type TaskRef } from './ports.ts'
import { unprovided, unprovidedJob } from './unprovided.ts'
import { extractAnswer } from './rewards/normalize.ts'
import { runActor, type RunActor } from './run-actor.ts'
import { StepBook } from './step-book.ts'
import { bindWorker } from './worker.ts'

type QuestionsTask = TaskRef<'reasoner.questions'>
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
  /** Tasks in flight. */
  readonly credit?: number
}

/** Some questions: asking → publishing → done; at once done when its step is committed already. */
export const answerTask = setup({
  types: {
    context: {} as { readonly task: QuestionsTask; readonly answers: readonly Answers[] | null },
    input: {} as { readonly task: QuestionsTask },
  },
  actors: {
    /** Samples completions and parses them, together with all questions of the step; null for a past step. */
    ask: unprovided<readonly Answers[] | null, { task: QuestionsTask }>('ask'),
    /** Appends the answers, then hands the groups to the Judge. */
    publish: unprovidedJob<{ task: QuestionsTask; answers: readonly Answers[] }>('publish'),
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
        const { task: parent, answers } = input
        await Promise.all(answers.map((group) => ports.bus.append('answers', group.group, group, parent)))
        await forward(ports, parent)
      }),
    },
  })
  const follow = ports.following(['questions', 'dead', 'retried', 'version'], (record) => book.apply(record))
  const machine = bindWorker(ports, 'reasoner.questions', options.credit ?? 512, task, follow)
  return runActor('reasoner', machine, ports)
}

async function ask(
  ports: Ports,
  book: StepBook,
  options: ReasonerOptions,
  task: QuestionsTask,
  signal: AbortSignal,
): Promise<readonly Answers[] | null> {
  const { step, minWeights, questions } = task.data
  const batch = await book.when(step, 'asked', signal)
  if (batch === null) return null
  const { answers: samples, maxNewTokens, temperature, seed } = options
  const prompts = questions.map(({ group, image, question }) => ({
    key: answerId(group),
    image,
    text: options.prompt.replaceAll('{question}', () => question),
  }))
  const settings = {
    samples,
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
  const reply = await ports.sample(answerId(task.id), prompts, settings, { parent: task, signal, again })
  return questions.map(({ group, image }, i) => {
    const completions = [...reply.completions[i]!]
    const parsed = completions.map(extractAnswer)
    return { step, group, image, prompt: prompts[i]!.text, weights: reply.weights, completions, parsed }
  })
}

async function forward(ports: Ports, task: QuestionsTask): Promise<void> {
  const { step, questions } = task.data
  const groups = questions.map(({ group }) => ({ group, questions: imageOf(group), answers: group }))
  await ports.bus.publish('judge.groups', groupsId(task.id, groups), { step, groups }, task)
}
