/** Questioner: from an image to questions with silver answers, by asking the model and parsing what it writes. */
import { assign, fromPromise, setup } from 'xstate'
import type { EventData } from '../bus/messages.ts'
import { askId, cohortId, groupId } from './ids.ts'
import { type Ports, type TaskRef } from './ports.ts'
import { unprovided, unprovidedJob } from './unprovided.ts'
import { parseQuestion } from './rewards/parse-question.ts'
import { runActor, type RunActor } from './run-actor.ts'
import { bindWorker } from './worker.ts'

type ImageTask = TaskRef<'questioner.image'>
type Questions = EventData<'questions'>

export interface QuestionerOptions {
  /** User text of the role, after the image. */
  readonly prompt: string
  /** Completions of each prompt. */
  readonly questions: number
  readonly maxNewTokens: number
  readonly temperature: number
  readonly seed: number
  /** Images in flight. */
  readonly credit?: number
}

/** One image: asking → publishing → done. */
export const questionTask = setup({
  types: {
    context: {} as { readonly task: ImageTask; readonly questions: Questions | null },
    input: {} as { readonly task: ImageTask },
  },
  actors: {
    /** Samples completions and parses them. */
    ask: unprovided<Questions, { task: ImageTask }>('ask'),
    /** Appends the questions, then hands on those that are in effect: to the Reasoner, malformed ones to the Judge. */
    publish: unprovidedJob<{ task: ImageTask; questions: Questions }>('publish'),
  },
}).createMachine({
  id: 'question',
  context: ({ input }) => ({ task: input.task, questions: null }),
  initial: 'asking',
  states: {
    asking: {
      invoke: {
        src: 'ask',
        input: ({ context }) => ({ task: context.task }),
        onDone: { target: 'publishing', actions: assign({ questions: ({ event }) => event.output }) },
      },
    },
    publishing: {
      invoke: {
        src: 'publish',
        input: ({ context }) => ({ task: context.task, questions: context.questions! }),
        onDone: 'done',
      },
    },
    done: { type: 'final' },
  },
})

/** Starts a Questioner on a bus. */
export function questioner(ports: Ports, options: QuestionerOptions): RunActor {
  const task = questionTask.provide({
    actors: {
      ask: fromPromise(({ input, signal }) => ask(ports, options, input.task, signal)),
      publish: fromPromise(async ({ input }) => {
        await forward(ports, input.task, await record(ports, input.task, input.questions))
      }),
    },
  })
  return runActor('questioner', bindWorker(ports, 'questioner.image', options.credit ?? 256, task), ports)
}

async function ask(ports: Ports, options: QuestionerOptions, task: ImageTask, signal: AbortSignal): Promise<Questions> {
  const { step, index, expects, image, name, minWeights } = task.data
  const { prompt, questions, maxNewTokens, temperature, seed } = options
  const request = {
    image,
    prompt,
    samples: questions,
    maxNewTokens,
    temperature,
    seed,
    minWeights,
    cohort: { id: cohortId('ask', step), size: expects },
    weights: null,
    rollout: true,
  }
  const again = task.deliveries > 1
  const reply = await ports.request('model.generate', askId(task.id), request, { parent: task, signal, again })
  const { weights, completions } = reply.message.data
  return {
    step,
    index,
    expects,
    image,
    name,
    prompt,
    weights,
    questions: completions.map((completion, i) => {
      const parsed = parseQuestion(completion)
      const said = parsed.malformed === null ? parsed : { question: '', silver: '', type: '', ...parsed }
      return { group: groupId(task.id, i), completion, ...said }
    }),
  }
}

/** The questions that are in effect in the log: those of an earlier delivery, if there was one. */
async function record(ports: Ports, task: ImageTask, questions: Questions): Promise<Questions> {
  const { duplicate } = await ports.bus.append('questions', task.id, questions, task)
  if (!duplicate) return questions
  return (await ports.bus.find('questions', task.id))!.message.data
}

async function forward(ports: Ports, task: ImageTask, { step, image, questions }: Questions): Promise<void> {
  const { minWeights } = task.data
  await Promise.all(
    questions.map(({ group, question, silver, malformed }) =>
      malformed === null
        ? ports.bus.publish('reasoner.question', group, { step, group, image, question, silver, minWeights }, task)
        : ports.bus.publish('judge.group', group, { step, group, questions: task.id, answers: null }, task),
    ),
  )
}
