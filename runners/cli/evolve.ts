/** `visplay evolve`: a model improves itself from unlabelled images. */
import type { Command } from 'commander'
import { Option } from 'commander'
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { DEVICES } from '../../configs/devices.ts'
import type { Config } from '../../configs/schema.ts'
import type { ResolvedModel } from '../hub/resolve-model.ts'
import type { EvolveEvent } from './events.ts'
import { UsageError } from './fail.ts'
import { interruptible } from './interrupt.ts'
import { modelDir } from './model-dir.ts'
import { MODEL } from './model-options.ts'
import { collect, newCommand } from './options.ts'
import type { CommonOptions } from './options.ts'
import { createOutput } from './output.ts'
import type { Output } from './output.ts'
import { createProgress } from './progress.ts'
import { defaultRunFolder, findRun } from './run-folder.ts'

interface Options extends CommonOptions {
  readonly model?: string
  readonly preset?: string
  readonly config?: string
  readonly set?: string[]
  readonly resume?: string
  readonly printConfig?: true
  readonly [flag: string]: unknown
}

/** Flags that are short for a key of the configuration: option name → key. */
const FLAGS: Readonly<Record<string, string>> = {
  images: 'images.dir',
  eval: 'eval.file',
  evalClean: 'eval.clean',
  out: 'out',
  run: 'run',
  seed: 'seed',
  steps: 'steps',
  recipe: 'recipe',
  device: 'model.device',
  threads: 'model.threads',
  nats: 'bus.nats',
  port: 'bus.port',
  listen: 'bus.listen',
  creds: 'bus.creds',
  tlsCert: 'bus.tls.cert',
  tlsKey: 'bus.tls.key',
  tlsCa: 'bus.tls.ca',
  stopOnAlarm: 'stopOnAlarm',
}

export function command(): Command {
  const about = [
    'Improves a model from unlabelled images: it asks itself questions and learns from how its answers agree.',
    'Without options it evolves the tiny model on rendered images. Results are in runs/<run>/.',
  ].join('\n')
  return newCommand('evolve', about, [
    ['', 'the tiny model, about 5 minutes on two cores'],
    ['--images ~/photos --model HuggingFaceTB/SmolVLM-256M-Instruct', 'your images, a published checkpoint'],
    ['--seed 2 --steps 40 --set optimizer.lr=1e-5', 'other settings'],
    ['--images ~/photos --eval held-out.jsonl --out /data/run1', 'with accuracy before and after'],
    ['--recipe majority-vote --stop-on-alarm', 'another recipe; ends when it collapses'],
    ['--resume my-run', 'go on after Ctrl-C or a crash'],
    ['--print-config', 'every setting, its meaning and what it takes'],
  ])
    .option('--model <dir>', `${MODEL} [model.dir]`)
    .option('--images <dir>', 'folder of unlabelled images, searched deeply [images.dir]')
    .option('--eval <file>', 'held-out JSONL: {"image", "question", "answer" | "answers", "type"?} [eval.file]')
    .option('--eval-clean <file>', 'second held-out JSONL, of the known domain [eval.clean]')
    .option('--out <dir>', 'folder of the run; runs/<run> if left out [out]')
    .option('--run <name>', 'name of the run [run]')
    .option('--seed <n>', 'seed of everything that is drawn [seed]')
    .option('--steps <n>', 'optimizer updates [steps]')
    .option('--recipe <name>', 'consensus, silver-reference, majority-vote [recipe]')
    .addOption(new Option('--device <name>', 'where to compute [model.device]').choices(DEVICES))
    .option('--threads <n>', 'CPU threads; 0 = the cores of the machine [model.threads]')
    .option('--nats <url>', 'a running NATS server instead of an own one [bus.nats]')
    .option('--port <n>', 'port of the own NATS server [bus.port]')
    .option('--listen <host>', 'let other machines join: address of the own server, such as 0.0.0.0 [bus.listen]')
    .option('--tls-cert <file>', 'certificate (PEM) of the own server, which then speaks TLS only [bus.tls.cert]')
    .option('--tls-key <file>', 'its private key (PEM) [bus.tls.key]')
    .option('--tls-ca <file>', 'certificate of the authority that others must trust [bus.tls.ca]')
    .option('--creds <file>', 'credentials for the server of --nats [bus.creds]')
    .option('--stop-on-alarm', 'end at the best version when a collapse shows [stopOnAlarm]')
    .option('--preset <name>', 'tiny, smolvlm; chosen from the model if left out')
    .option('--config <file>', 'YAML with differences to the preset')
    .option('--set <key=value>', 'one setting, repeatable, for example groups.images=32', collect)
    .option('--resume <run>', 'go on with a run, given by name or folder')
    .option('--print-config', 'print the whole configuration and stop')
    .action(run)
}

async function run(options: Options): Promise<void> {
  const output = createOutput(options.json === true)
  const { configToYaml } = await import('../../configs/load.ts')
  const config = await configOf(options)
  if (options.printConfig) {
    process.stdout.write(configToYaml(config))
    return
  }
  const [{ evolve }, { createRunLog }] = await Promise.all([import('../evolve/evolve.ts'), import('./run-log.ts')])
  const log = createRunLog(config.out, options.verbose === true)
  const stream = output.json ? process.stderr : process.stdout
  const columns = stream.isTTY ? stream.columns : undefined
  const progress = createProgress({ write: (text) => void stream.write(text), columns })
  const show = (event: EvolveEvent): void => {
    log.write(event)
    output.data(event)
    progress.show(event)
  }
  progress.show({ event: 'note', message: 'preparing the model, the images and the NATS server' })
  await interruptible(async (signal) => {
    try {
      await evolve(config, { show, signal, resume: options.resume !== undefined })
    } finally {
      progress.close()
      if (signal.aborted) hintResume(output, config)
    }
  })
}

/** The configuration of a new run, with its name and folder decided; or that of the run to go on with. */
async function configOf(options: Options): Promise<Config & { run: string; out: string }> {
  const { loadConfig, readConfig } = await import('../../configs/load.ts')
  const flags = Object.entries(FLAGS).map(([option, key]) => ({ key, ...flagOf(option, options[option]) }))
  if (options.resume !== undefined) {
    const given = [
      ...flags.flatMap(({ value, flag }) => (value === undefined ? [] : [flag])),
      ...(options.model === undefined ? [] : ['--model']),
      ...(options.set || options.config ? ['--set'] : []),
    ][0]
    if (given) throw new UsageError(`${given} cannot change a run that is resumed; start a new one instead`)
    const out = findRun(options.resume)
    const config = readConfig(join(out, 'config.yaml'))
    // The folder may have been moved since.
    return { ...config, model: await present(config.model), run: config.run!, out }
  }
  const { preset, config: file, set: sets = [] } = options
  const load = (more: typeof flags) =>
    loadConfig({ ...(preset === undefined ? {} : { preset }), file, sets, flags: [...flags, ...more] })
  const named = options.model ?? load([]).model.hub
  const config = load(named === null ? [] : modelFlags(await modelDir(named), `--model ${named}`))
  const run = config.run ?? nameOfNow()
  const out = config.out ?? defaultRunFolder(run)
  if (existsSync(join(out, 'config.yaml'))) {
    throw new UsageError(`${out} holds a run already; go on with "--resume ${out}" or choose another --out`)
  }
  return { ...config, run, out }
}

/** A folder of the user's, or one of the cache with the name and the commit that it is a copy of. */
const modelFlags = ({ dir, hub }: ResolvedModel, flag: string) => [
  { key: 'model.dir', value: dir, flag },
  { key: 'model.hub', value: hub, flag },
]

/** A checkpoint from the hub that the cache has lost since is fetched again: the very commit. */
async function present(model: Config['model']): Promise<Config['model']> {
  if (model.hub === null || existsSync(model.dir)) return model
  return { ...model, dir: (await modelDir(model.hub)).dir }
}

const NUMBERS: ReadonlySet<string> = new Set(['seed', 'steps', 'threads', 'port'])

/** Numbers come as text; what is none goes through as text, so that the schema names it. */
function flagOf(option: string, value: unknown): { flag: string; value: unknown } {
  const flag = `--${option.replaceAll(/[A-Z]/g, (c) => `-${c.toLowerCase()}`)}`
  const number = NUMBERS.has(option) && typeof value === 'string' && value.trim() !== '' ? Number(value) : NaN
  return { flag: value === true ? flag : `${flag} ${String(value)}`, value: Number.isNaN(number) ? value : number }
}

/** `20260105-090342-1f3a`: sorts by time, and two runs of one second differ. */
function nameOfNow(): string {
  const stamp = new Date().toISOString().slice(0, 19).replaceAll(/[-:]/g, '').replace('T', '-')
  return `${stamp}-${Math.floor(Math.random() * 0x10000)
    .toString(16)
    .padStart(4, '0')}`
}

function hintResume(output: Output, { out, run }: { readonly out: string; readonly run: string }): void {
  const name = out === defaultRunFolder(run) ? run : out
  if (existsSync(join(out, 'config.yaml'))) output.note(`go on with: npx visplay evolve --resume ${name}`)
}
