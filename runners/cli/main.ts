/** The command line. A command is one file here and one line in COMMANDS; only the file of the called one is loaded. */
import { Command, CommanderError } from 'commander'
import { readFileSync } from 'node:fs'
import { fail } from './fail.ts'

interface Entry {
  readonly summary: string
  load(): Promise<{ command(): Command }>
}

const COMMANDS: Readonly<Record<string, Entry>> = {
  evolve: { summary: 'improve a model from unlabelled images (npm start)', load: () => import('./evolve.ts') },
  generate: { summary: 'answer one prompt about images', load: () => import('./generate.ts') },
  serve: { summary: 'an OpenAI-compatible server of a model or a run', load: () => import('./serve.ts') },
  eval: { summary: 'measure a model on questions with known answers', load: () => import('./eval.ts') },
  pretrain: { summary: 'train the tiny model from nothing', load: () => import('./pretrain.ts') },
  verify: { summary: 'recompute a folder of reference outputs', load: () => import('./verify.ts') },
  bench: { summary: 'measure speed and memory on this machine', load: () => import('./bench.ts') },
  join: { summary: 'take part in a run from another process or machine', load: () => import('./join.ts') },
  status: { summary: 'who works on a run, and how it goes', load: () => import('./status.ts') },
  actor: { summary: 'add an actor of your own to a run, or replace one', load: () => import('./actor.ts') },
  tap: { summary: 'listen to a run', load: () => import('./tap.ts') },
  dead: { summary: 'tasks that a run has given up', load: () => import('./dead.ts') },
  audit: { summary: 'prove from its log that a run lost nothing', load: () => import('./audit.ts') },
  replay: { summary: 'judge a run again from its log', load: () => import('./replay.ts') },
  export: { summary: 'hand the log of a run to other tools', load: () => import('./export.ts') },
  report: { summary: 'rebuild report.html of a run', load: () => import('./report.ts') },
  doctor: { summary: 'check what this machine has', load: () => import('./doctor.ts') },
}

const EXAMPLES = `
Examples:
  $ npx visplay evolve                                      the tiny model on rendered images
  $ npx visplay evolve --images ~/photos --model ./SmolVLM-256M-Instruct
  $ npx visplay evolve --resume my-run
  $ npx visplay evolve --help

"npx visplay COMMAND --help" shows the options of a command, with examples.`

/** Runs one command line; sets the exit code and never rejects. */
export async function main(argv: readonly string[]): Promise<void> {
  const verbose = argv.includes('--verbose')
  process.stdout.on('error', quietOnClosedPipe)
  const onStray = (error: unknown): void => {
    fail(error, verbose)
    process.exit()
  }
  process.on('uncaughtException', onStray)
  process.on('unhandledRejection', onStray)
  try {
    await (await buildProgram(argv)).parseAsync([...argv], { from: 'user' })
  } catch (error) {
    if (error instanceof CommanderError) process.exitCode = error.exitCode === 0 ? 0 : 2
    else fail(error, verbose)
  }
}

async function buildProgram(argv: readonly string[]): Promise<Command> {
  const program = new Command('visplay')
    .description('Self-evolving vision-language models: a model improves itself from unlabelled images.')
    .version(version(), '-V, --version')
    .helpCommand(false)
    .showSuggestionAfterError()
    .addHelpText('after', EXAMPLES)
    .exitOverride()
    .configureOutput(ONE_LINE_ERRORS)
  const called = argv.find((word) => !word.startsWith('-'))
  for (const [name, { summary, load }] of Object.entries(COMMANDS)) {
    if (name === called) program.addCommand((await load()).command().exitOverride().configureOutput(ONE_LINE_ERRORS))
    else program.command(name).description(summary)
  }
  if (called === undefined) program.action(() => program.help())
  return program
}

/** Commander writes `error: …` and a suggestion on a second line. */
const ONE_LINE_ERRORS = {
  writeErr: (text: string) => process.stderr.write(text),
  outputError: (text: string, write: (text: string) => void) =>
    write(
      `visplay: ${text
        .replace(/^error: /, '')
        .trim()
        .replaceAll('\n', ' ')}\n`,
    ),
}

function version(): string {
  const file = new URL('../../package.json', import.meta.url)
  return (JSON.parse(readFileSync(file, 'utf8')) as { version: string }).version
}

/** `visplay … | head` closes the pipe early: that is no error. */
function quietOnClosedPipe(error: NodeJS.ErrnoException): void {
  if (error.code === 'EPIPE') process.exit()
  throw error
}
