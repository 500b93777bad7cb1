/** `visplay dead`: tasks that a run has given up. */
import { Argument } from 'commander'
import type { Command } from 'commander'
import type { DeadTask } from '../dead/dead.ts'
import { suggestion } from '../../configs/suggest.ts'
import { UsageError } from './fail.ts'
import { newCommand } from './options.ts'
import type { CommonOptions } from './options.ts'
import { createOutput } from './output.ts'
import { chosenRun } from './run-folder.ts'

const ACTIONS = ['list', 'show', 'retry'] as const
type Action = (typeof ACTIONS)[number]

interface Options extends CommonOptions {
  readonly run?: string
  readonly all?: true
}

export function command(): Command {
  const about = [
    'A task that fails five times is given up: it is logged as dead, and the run goes on without it. list shows them,',
    'show the whole message of one, retry puts it on the queue again, as long as its step is not committed.',
  ].join('\n')
  return newCommand('dead', about, [
    ['list', 'what the newest run here has given up, and why'],
    ['show judge-groups-s3-i5-q0 --run my-run', 'the task as it was'],
    ['retry judge-groups-s3-i5-q0', 'once more, after its cause is mended'],
    ['retry --all', 'everything that somebody still waits for'],
  ])
    .addArgument(new Argument('<action>', 'what to do').choices(ACTIONS))
    .argument('[name]', 'of the task, as list shows it')
    .option('--run <run>', 'name or folder of a run; the newest in runs/ if left out')
    .option('--all', 'with retry: all that can be retried')
    .action(run)
}

async function run(action: Action, name: string | undefined, options: Options): Promise<void> {
  const output = createOutput(options.json === true)
  const [{ deadTasks, notRetriable, retry, taskOf }, { openBus }] = await Promise.all([
    import('../dead/dead.ts'),
    import('../dead/open.ts'),
  ])
  const { bus, close } = await openBus(chosenRun(options.run))
  try {
    const tasks = await deadTasks(bus)
    if (action === 'list') {
      for (const task of tasks) output.data(task)
      for (const task of tasks) output.text(lineOf(task))
      if (tasks.length === 0) output.text('nothing was given up')
    } else if (action === 'show') {
      const task = named(tasks, name)
      const message = await taskOf(bus, task)
      output.data({ ...task, message })
      output.text(`${lineOf(task)}\ngiven up by ${task.by} at ${task.at}\n${JSON.stringify(message, null, 2)}`)
    } else {
      const chosen = options.all === true ? tasks.filter((t) => notRetriable(t) === null) : [named(tasks, name)]
      for (const task of chosen) {
        const why = notRetriable(task)
        if (why !== null) throw new UsageError(why)
        await retry(bus, task)
        output.data({ event: 'retried', name: task.name })
        output.text(`${task.name} is on the queue again`)
      }
      if (chosen.length === 0) output.text('there is nothing to retry')
    }
  } finally {
    await close()
  }
}

function named(tasks: readonly DeadTask[], name: string | undefined): DeadTask {
  if (name === undefined) throw new UsageError('name a task, as visplay dead list shows it')
  const found = tasks.find((task) => task.name === name)
  if (found) return found
  const names = tasks.map((task) => task.name)
  throw new UsageError(`nothing called "${name}" was given up${suggestion(name, names)}; see visplay dead list`)
}

const lineOf = ({ name, state, deliveries, cause }: DeadTask): string =>
  `${name} [${state}] after ${deliveries} deliveries: ${cause}`
