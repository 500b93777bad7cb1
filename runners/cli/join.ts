/** `visplay join`: takes part in a run of another process or machine. */
import type { Command } from 'commander'
import { InvalidArgumentError, Option } from 'commander'
import { homedir } from 'node:os'
import { join } from 'node:path'
import { DEVICES, type Device } from '../../configs/devices.ts'
import type { Joinable, JoinEvent } from '../join/join.ts'
import { interruptible } from './interrupt.ts'
import { modelDir } from './model-dir.ts'
import { integer, newCommand } from './options.ts'
import type { CommonOptions } from './options.ts'
import { createOutput } from './output.ts'
import { accessAt, withAccess, type AccessOptions } from './server-options.ts'

type Counts = Partial<Record<Joinable, number>>

interface Options extends CommonOptions, AccessOptions {
  readonly run?: string
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
  const joining = newCommand('join', about, [
    ['nats://host:4222 --creds worker.creds', 'one model actor, for a run started with --listen 0.0.0.0'],
    ['tls://host:4222 --creds worker.creds --tls-ca ca.pem', 'the same, for one started with --tls-cert as well'],
    ['nats://host:4222 --creds worker.creds --actors model=1,judge=1', 'a judge too'],
    ['nats://host:4222 --creds optimizer.creds --actors optimizer=1', 'stands by as Optimizer'],
    ['nats://host:4222 --creds worker.creds --model ./SmolVLM-256M-Instruct', 'a checkpoint that is here already'],
  ])
  return withAccess(joining.argument('<url>', 'NATS server of the run'))
    .option('--run <name>', 'the run; the only one of the server if left out')
    .option(
      '--actors <counts>',
      'model, questioner, reasoner, judge, optimizer (stands by), with how many of each',
      counts,
      { model: 1 },
    )
    .addOption(new Option('--device <name>', 'where to compute').choices(DEVICES).default('auto'))
    .option('--threads <n>', 'CPU threads; 0 = the cores of the machine', integer(0), 0)
    .option(
      '--model <dir>',
      'the checkpoint that the run began with: a folder, or owner/name[@revision] of the hub; from the run if left out',
    )
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
  const [{ join: joinRun }, access] = await Promise.all([import('../join/join.ts'), accessAt(server, options)])
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
  const model = options.model === undefined ? null : (await modelDir(options.model)).dir
  await interruptible((signal) =>
    joinRun({ access, run: options.run, actors, device, threads, model, cache, show, signal }),
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
