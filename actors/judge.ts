/** Judge: turns a question and its group of answers into a verdict, by a recipe. Replaceable while a run goes on. */
import { assign, fromPromise, setup } from 'xstate'
import type { EventData } from '../bus/messages.ts'
import { type Ports, type TaskRef } from './ports.ts'
import { unprovided, unprovidedJob } from './unprovided.ts'
import type { Judge, JudgeInput } from './rewards/recipe.ts'
import type { Similarity } from './rewards/similarity.ts'
import { runActor, type RunActor } from './run-actor.ts'
import { StepBook, wellFormedQuestions, type StepBatch } from './step-book.ts'
import { bindWorker } from './worker.ts'

type GroupsTask = TaskRef<'judge.groups'>
type Verdict = EventData<'verdict'>

export interface JudgeOptions {
  /** The recipe, bound to its knobs. */
  readonly recipe: Judge
  readonly similarity: Similarity
  /** Images of a step, assumed until the log says it. */
  readonly images: number
  /** Tasks in flight. */
  readonly credit?: number
}

/** Some groups: judging → publishing → done; at once done when its step is committed already. */
export const judgeTask = setup({
  types: {
    context: {} as { readonly task: GroupsTask; readonly verdicts: readonly Verdict[] | null },
    input: {} as { readonly task: GroupsTask },
  },
  actors: {
    /** Waits for all questions of the step, because diversity is over the batch, and judges; null for a past step. */
    judge: unprovided<readonly Verdict[] | null, { task: GroupsTask }>('judge'),
    publish: unprovidedJob<{ task: GroupsTask; verdicts: readonly Verdict[] }>('publish'),
  },
}).createMachine({
  id: 'judge',
  context: ({ input }) => ({ task: input.task, verdicts: null }),
  initial: 'judging',
  states: {
    judging: {
      invoke: {
        src: 'judge',
        input: ({ context }) => ({ task: context.task }),
        onDone: [
          { guard: ({ event }) => event.output === null, target: 'done' },
          { target: 'publishing', actions: assign({ verdicts: ({ event }) => event.output }) },
        ],
      },
    },
    publishing: {
      invoke: {
        src: 'publish',
        input: ({ context }) => ({ task: context.task, verdicts: context.verdicts! }),
        onDone: 'done',
      },
    },
    done: { type: 'final' },
  },
})

/** Starts a Judge on a bus. */
export function judge(ports: Ports, options: JudgeOptions): RunActor {
  const book = new StepBook(options.images)
  const inputs = new BatchInputs()
  const task = judgeTask.provide({
    actors: {
      judge: fromPromise(async ({ input, signal }) => {
        const { step, groups } = input.task.data
        const batch = await book.when(step, 'asked', signal)
        if (batch === null) return null
        return Promise.all(
          groups.map(async (group) => {
            const judged = await gather(ports, batch, inputs, group, signal)
            return verdictOf(options, { step, group: group.group }, judged)
          }),
        )
      }),
      publish: fromPromise(async ({ input }) => {
        const { task: parent, verdicts } = input
        await Promise.all(verdicts.map((verdict) => ports.bus.append('verdict', verdict.group, verdict, parent)))
      }),
    },
  })
  const follow = ports.following(['questions', 'answers', 'dead', 'retried', 'version'], (record) => book.apply(record))
  return runActor('judge', bindWorker(ports, 'judge.groups', options.credit ?? 512, task, follow), ports)
}

/** The questions of a batch, listed once per batch rather than once per group. */
class BatchInputs {
  readonly #listed = new WeakMap<StepBatch, readonly string[]>()

  of(batch: StepBatch): readonly string[] {
    let questions = this.#listed.get(batch)
    if (!questions) {
      questions = wellFormedQuestions(batch)
      this.#listed.set(batch, questions)
    }
    return questions
  }
}

async function gather(
  ports: Ports,
  batch: StepBatch,
  inputs: BatchInputs,
  { group, questions, answers }: GroupsTask['data']['groups'][number],
  signal: AbortSignal,
): Promise<JudgeInput> {
  const asked = batch.questions.get(group)
  if (!asked) throw new Error(`event questions ${questions} has no question ${group}`)
  const said = answers === null ? null : await answersOf(ports, batch, answers, signal)
  const { question, silver, malformed } = asked
  return { question, silver, malformed, answers: said?.parsed ?? [], others: inputs.of(batch) }
}

async function answersOf(
  ports: Ports,
  batch: StepBatch,
  group: string,
  signal: AbortSignal,
): Promise<EventData<'answers'>> {
  return batch.answers.get(group) ?? (await ports.bus.await('answers', group, signal)).message.data
}

/** The `verdict` event of a group: what the recipe says, stamped with who says it. */
export async function verdictOf(
  { recipe, similarity }: Pick<JudgeOptions, 'recipe' | 'similarity'>,
  { step, group }: Pick<Verdict, 'step' | 'group'>,
  input: JudgeInput,
): Promise<Verdict> {
  const { questioner, reasoner } = await recipe.judge(input, similarity)
  const stamp = { name: recipe.name, version: recipe.version, similarity: similarity.name }
  return { step, group, judge: stamp, recipe: recipe.name, questioner, reasoner }
}
