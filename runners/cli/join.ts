/** `visplay join`: takes part in a run of another process or machine. */
import type { Command } from 'commander'
import { InvalidArgumentError, Option } from 'commander'
import { homedir } from 'node:os'
import { join, resolve } from 'node:path'
import { DEVICES, type Device } from '../../configs/devices.ts'
import type { Joinable, JoinEvent } from '../join/join.ts'
import { interruptible } from './interrupt.ts'
import { integer, newCommand } from './options.ts'
import type { CommonOptions } from './options.ts'
import { createOutput } from './output.ts'

type Counts = Partial<Record<Joinable, number>>

interface Options extends CommonOptions {
  readonly run?: string
  readonly creds?: string
  readonly actors: Counts
  readonly device: Device
  readonly threads: number
  readonly model?: string
}

export function command(): Command {
  const about = [
    'Takes part in a run: starts actors here that pull their work from its queue. Leave with Ctrl-C at any time;',
    'unfinished work goes back at once. The run prints the line to type.',
  ].join('\n')
  return newCommand('join', about, [
    ['nats://worker:SECRET@host:4222', 'one model actor, for a run started with --listen 0.0.0.0'],
    ['nats://127.0.0.1:4222 --run my-run --actors model=1,judge=1', 'another process on the same machine'],
    ['nats://host:4222 --creds optimizer.creds --actors optimizer=1', 'stands by as Optimizer'],
    ['nats://worker:SECRET@host:4222 --model ./SmolVLM-256M-Instruct', 'a checkpoint that is here already'],
  ])
    .argument('<url>', 'NATS server of the run')
    .option('--creds <file>', 'role and secret, from nats/*.creds in the folder of the run, instead of in the URL')
    .option('--run <name>', 'the run; the only one of the server if left out')
    .option(
      '--actors <counts>',
      'model, questioner, reasoner, judge, optimizer (stands by), with how many of each',
      counts,
      { model: 1 },
    )
    .addOption(new Option('--device <name>', 'where to compute').choices(DEVICES).default('auto'))
    .option('--threads <n>', 'CPU threads; 0 = the cores of the machine', integer(0), 0)
    .option('--model <dir>', 'folder of the checkpoint that the run began with; fetched from the run if left out')
    .action(run)
}

const ROLES: readonly Joinable[] = ['model', 'questioner', 'reasoner', 'judge', 'optimizer']

/** `model=1,reasoner=2`; a role alone is one. */
function counts(text: string): Counts {
  const entries = text.split(',').map((part): [Joinable, number] => {
    const [name, number = '1'] = part.trim().split('=')
    const role = ROLES.find((r) => r === name)
    if (!role)
      throw new InvalidArgumentError(`There is no actor "${name}" to join with; there are ${ROLES.join(', ')}.`)
    return [role, integer(0, 64)(number)]
  })
  return Object.fromEntries(entries)
}

async function run(server: string, options: Options): Promise<void> {
  const output = createOutput(options.json === true)
  const [{ join: joinRun }, { withCredentialsOf }] = await Promise.all([
    import('../join/join.ts'),
    import('../../bus/nats/credentials.ts'),
  ])
  const url = options.creds === undefined ? server : await withCredentialsOf(resolve(options.creds), server)
  const cache = join(
    process.env['XDG_CACHE_HOME'] || join(process.env['HOME'] || homedir(), '.cache'),
    'visplay',
    'base',
  )
  const show = (event: JoinEvent): void => {
    output.data(event)
    const line = lineOf(event)
    if (event.event === 'note') output.note(line)
    else output.text(line)
  }
  const { device, threads, actors } = options
  const model = options.model === undefined ? null : resolve(options.model)
  await interruptible((signal) =>
    joinRun({ url, run: options.run, actors, device, threads, model, cache, show, signal }),
  )
}

function lineOf(event: JoinEvent): string {
  switch (event.event) {
    case 'fetching':
      return `checkpoint of the run: ${mb(event.bytes)} of ${mb(event.total)} MB`
    case 'joined':
      return `joined run ${event.run} on ${event.device} with ${event.actors.join(', ')}; leave with Ctrl-C`
    case 'version':
      return `version ${event.version} of ${event.steps}`
    case 'note':
      return event.message
    case 'done':
      return `run ${event.run} has ended with version ${event.version ?? 0}`
  }
}

const mb = (bytes: number): string => (bytes / 1e6).toFixed(1)
