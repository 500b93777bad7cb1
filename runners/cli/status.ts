/** `visplay status`: who works on a run, and how it goes. */
import type { Command } from 'commander'
import { basename } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import type { RunStatus } from '../status/status.ts'
import { interruptible } from './interrupt.ts'
import { newCommand } from './options.ts'
import type { CommonOptions } from './options.ts'
import { createOutput } from './output.ts'
import { table } from './table.ts'
import { chosenRun } from './run-folder.ts'
import { accessOf, withServer, type ServerOptions } from './server-options.ts'

interface Options extends CommonOptions, ServerOptions {
  readonly watch?: true
}

export function command(): Command {
  const about = [
    'Shows the actors of a run with the version that each holds and how far behind it is, what waits in the queues, and',
    'what each device computes per second. Listens for 2.5 s; changes nothing.',
  ].join('\n')
  const status = newCommand('status', about, [
    ['', 'the newest run here'],
    ['my-run --watch', 'again and again until Ctrl-C'],
    ['my-run --nats nats://host:4222 --creds tap.creds --json', 'a run on another server, as one JSON object'],
  ])
  return withServer(status.argument('[run]', 'name or folder of a run; the newest in runs/ if left out'))
    .option('--watch', 'go on until Ctrl-C')
    .action(run)
}

async function run(name: string | undefined, options: Options): Promise<void> {
  const output = createOutput(options.json === true)
  const [{ openTap }, { runStatus }] = await Promise.all([import('../tap/open.ts'), import('../status/status.ts')])
  const server = await accessOf(options)
  const where = server === undefined ? chosenRun(name) : name
  const { tap, close } = await openTap(server, where)
  try {
    await interruptible(async (signal) => {
      for (;;) {
        const status = await runStatus(tap, signal)
        output.data({ event: 'status', ...status })
        output.text(textOf(status, basename(where ?? status.run)))
        if (options.watch !== true) return
        await sleep(1000, undefined, { signal })
      }
    })
  } finally {
    await close()
  }
}

function textOf({ version, epoch, actors, queues, devices, dead, alarms, log }: RunStatus, name: string): string {
  const head = version === null ? 'no version yet' : `version ${version}, epoch ${epoch}`
  const mb = (log.bytes / 1e6).toFixed(1)
  return [
    `run ${name}: ${head}, ${log.records} records (${mb} MB), ${alarms} alarms, ${dead} tasks given up`,
    ...(actors.length === 0 ? ['nobody works on it: no actor was heard'] : []),
    ...table(
      ['actor', 'state', 'version', 'behind', 'tasks'],
      actors.map((a) => [a.actor, a.state, a.version ?? '', a.lag ?? '', a.inFlight]),
    ),
    ...table(
      ['queue', 'waiting', 'in flight', 'again'],
      queues.map((q) => [q.kind, q.waiting, q.inFlight, q.redelivered]),
    ),
    ...table(
      ['device, last minute', '', 'sampled tok/s', 'trained tok/s', 'busy %'],
      devices.map((d) => [
        d.actor,
        d.device,
        d.sampledPerSecond.toFixed(0),
        d.trainedPerSecond.toFixed(0),
        (100 * d.busy).toFixed(0),
      ]),
    ),
    '',
  ].join('\n')
}
