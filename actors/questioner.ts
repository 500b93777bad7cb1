/** Questioner: from images to questions with silver answers, by asking the model and parsing what it writes. */
import { assign, fromPromise, setup } from 'xstate'
import type { EventData } from '../bus/messages.ts'
import { askId, cohortId, groupId, groupsId } from './ids.ts'
import { type Ports, type TaskRef } from './ports.ts'
import { unprovided, unprovidedJob } from './unprovided.ts'
import { parseQuestion } from './rewards/parse-question.ts'
import { runActor, type RunActor } from './run-actor.ts'
import { bindWorker } from './worker.ts'

type ImagesTask = TaskRef<'questioner.images'>
type Questions = EventData<'questions'>

export interface QuestionerOptions {
  /** User text of the role, after the image. */
  readonly prompt: string
  /** Completions of each prompt. */
  readonly questions: number
  readonly maxNewTokens: number
  readonly temperature: number
  readonly seed: number
  /** Tasks in flight. */
  readonly credit?: number
}

/** Some images: asking → publishing → done. */
export const questionTask = setup({
  types: {
    context: {} as { readonly task: ImagesTask; readonly asked: readonly Questions[] },
    input: {} as { readonly task: ImagesTask },
  },
  actors: {
    /** Samples completions and parses them. */
    ask: unprovided<readonly Questions[], { task: ImagesTask }>('ask'),
    /** Appends the questions, then hands on those that are in effect: to the Reasoner, malformed ones to the Judge. */
    publish: unprovidedJob<{ task: ImagesTask; asked: readonly Questions[] }>('publish'),
  },
}).createMachine({
  id: 'question',
  context: ({ input }) => ({ task: input.task, asked: [] }),
  initial: 'asking',
  states: {
    asking: {
      invoke: {
        src: 'ask',
        input: ({ context }) => ({ task: context.task }),
        onDone: { target: 'publishing', actions: assign({ asked: ({ event }) => event.output }) },
      },
    },
    publishing: {
      invoke: {
        src: 'publish',
        input: ({ context }) => ({ task: context.task, asked: context.asked }),
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
        await forward(ports, input.task, await record(ports, input.task, input.asked))
      }),
    },
  })
  return runActor('questioner', bindWorker(ports, 'questioner.images', options.credit ?? 256, task), ports)
}

async function ask(
  ports: Ports,
  options: QuestionerOptions,
  task: ImagesTask,
  signal: AbortSignal,
): Promise<readonly Questions[]> {
  const { step, expects, minWeights, images } = task.data
  const { prompt, questions: samples, maxNewTokens, temperature, seed } = options
  const prompts = images.map(({ id, image }) => ({ key: askId(id), image, text: prompt }))
  const settings = {
    samples,
    maxNewTokens,
    temperature,
    seed,
    minWeights,
    cohort: { id: cohortId('ask', step), size: expects },
    weights: null,
    rollout: true,
  }
  const again = task.deliveries > 1
  const { weights, completions } = await ports.sample(askId(task.id), prompts, settings, {
    parent: task,
    signal,
    again,
  })
  return images.map(({ id, index, image, name }, i) => ({
    step,
    index,
    expects,
    image,
    name,
    prompt,
    weights,
    questions: completions[i]!.map((completion, q) => {
      const parsed = parseQuestion(completion)
      const said = parsed.malformed === null ? parsed : { question: '', silver: '', type: '', ...parsed }
      return { group: groupId(id, q), completion, ...said }
    }),
  }))
}

/** The questions that are in effect in the log: those of an earlier delivery, if there was one. */
function record(ports: Ports, task: ImagesTask, asked: readonly Questions[]): Promise<readonly Questions[]> {
  return Promise.all(
    task.data.images.map(async ({ id }, i) => {
      const { duplicate } = await ports.bus.append('questions', id, asked[i]!, task)
      return duplicate ? (await ports.bus.find('questions', id))!.message.data : asked[i]!
    }),
  )
}

async function forward(ports: Ports, task: ImagesTask, asked: readonly Questions[]): Promise<void> {
  const { step, minWeights, images } = task.data
  const all = asked.flatMap(({ image, questions }, i) =>
    questions.map((question) => ({ image, from: images[i]!.id, ...question })),
  )
  const questions = all
    .filter(({ malformed }) => malformed === null)
    .map(({ group, image, question, silver }) => ({ group, image, question, silver }))
  const groups = all
    .filter(({ malformed }) => malformed !== null)
    .map(({ group, from }) => ({ group, questions: from, answers: null }))
  const { bus } = ports
  await Promise.all([
    questions.length > 0 &&
      bus.publish('reasoner.questions', groupsId(task.id, questions), { step, minWeights, questions }, task),
    groups.length > 0 && bus.publish('judge.groups', groupsId(`${task.id}-malformed`, groups), { step, groups }, task),
  ])
}
