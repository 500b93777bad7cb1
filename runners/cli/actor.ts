/** `visplay actor`: an actor of the user's in a run. */
import { Option } from 'commander'
import type { Command } from 'commander'
import { constants } from 'node:fs'
import { copyFile } from 'node:fs/promises'
import { resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { InjectEvent } from '../actor/inject.ts'
import { UsageError } from './fail.ts'
import { interruptible } from './interrupt.ts'
import { newCommand } from './options.ts'
import type { CommonOptions } from './options.ts'
import { createOutput } from './output.ts'
import type { Output } from './output.ts'
import { chosenRun } from './run-folder.ts'
import { accessOf, withServer, type ServerOptions } from './server-options.ts'

const TEMPLATES = ['judge', 'llm-judge', 'filter', 'reward', 'critic', 'evaluator'] as const
type Template = (typeof TEMPLATES)[number]

interface Options extends CommonOptions, ServerOptions {
  readonly run?: string
  readonly new?: Template
}

export function command(): Command {
  const about = [
    'Starts an actor of your own in a run that goes on, from one TypeScript or JavaScript file. One that does the work of',
    'a role of the run (a judge, for example) takes its place; the one started last works, until it leaves with Ctrl-C',
    'or is not heard for 8 s. The file runs with your rights: start only what you trust.',
  ].join('\n')
  const actor = newCommand('actor', about, [
    ['--new judge', 'writes my-judge.ts to begin with'],
    ['--new llm-judge', 'one that asks a language model (LLM_JUDGE_URL, LLM_JUDGE_MODEL, LLM_JUDGE_KEY)'],
    ['./my-judge.ts', 'judges in the newest run here, from now on'],
    ['./my-critic.ts --run my-run', 'reads along in a run'],
    ['./my-judge.ts --nats nats://host:4222 --creds worker.creds', 'in a run of another machine'],
  ])
    .argument('[file]', 'exports what defineActor or defineJudge of visplay/actor makes')
    .option('--run <run>', 'name or folder of a run; the newest in runs/ if left out')
  return withServer(actor)
    .addOption(new Option('--new <template>', 'write a file to begin with').choices(TEMPLATES))
    .action(run)
}

async function run(file: string | undefined, options: Options): Promise<void> {
  const output = createOutput(options.json === true)
  if (options.new !== undefined) return writeTemplate(options.new, file, output)
  if (file === undefined) throw new UsageError('name the file of the actor, or --new judge for one to begin with')
  const [{ inject }, { loadActor }, { liveServer }, { chooseRun }] = await Promise.all([
    import('../actor/inject.ts'),
    import('../actor/load.ts'),
    import('../actor/live-server.ts'),
    import('../join/choose-run.ts'),
  ])
  const actor = await loadActor(resolve(file))
  const access = await accessOf(options)
  const where = access
    ? { access, run: await chooseRun(access, options.run) }
    : await liveServer(chosenRun(options.run))
  const show = (event: InjectEvent): void => {
    output.data(event)
    if (event.event === 'note') output.note(event.message)
    else output.text(lineOf(event))
  }
  await interruptible((signal) => inject({ ...where, actor, show, signal }))
}

function lineOf(event: Exclude<InjectEvent, { event: 'note' }>): string {
  if (event.event === 'done') return `run ${event.run} has ended`
  const part = event.replaces === null ? '' : `; all ${event.replaces} tasks come here now`
  return `${event.actor} works in run ${event.run}${part}; leave with Ctrl-C`
}

/** Never over a file that is there. */
async function writeTemplate(template: Template, file: string | undefined, output: Output): Promise<void> {
  const to = resolve(file ?? `my-${template}.ts`)
  try {
    await copyFile(
      fileURLToPath(new URL(`../actor/templates/${template}.ts`, import.meta.url)),
      to,
      constants.COPYFILE_EXCL,
    )
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === 'EEXIST') throw new UsageError(`${to} is there already`, { cause })
    throw cause
  }
  output.data({ event: 'done', file: to })
  output.text(`${to}: start it with npx visplay actor ${file ?? `my-${template}.ts`}`)
}
