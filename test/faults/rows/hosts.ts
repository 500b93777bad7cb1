/** Three hosts, the bus with the run and two joiners: one is killed, one is added, one loses its cable for a while. */
import { setTimeout as sleep } from 'node:timers/promises'
import type { RunStatus } from '../../../runners/status/status.ts'
import { program } from '../../support/program.ts'
import type { Fault } from '../fault.ts'
import { Network, noHosts } from '../hosts.ts'
import { ALL, NO_WORKERS } from '../run.ts'

const CABLE_MS = 15_000

export const hosts: Fault = {
  row: 'hosts',
  name: 'three hosts in network namespaces: one killed, one added, one without its cable for 15 s',
  missing: noHosts,
  async run(lab) {
    const network = await Network.make()
    lab.finally(() => network.remove())
    const [bus, first, second, added] = [
      await network.host(),
      await network.host(),
      await network.host(),
      await network.host(),
    ]
    const run = await lab.run(30, [...NO_WORKERS, '--listen', '0.0.0.0'], { within: bus.within })
    const url = `nats://${bus.address}:${run.port}`
    const cache = (name: string) => ({ XDG_CACHE_HOME: `${lab.dir}/cache-${name}` })
    const join = (host: typeof first) => run.join(ALL, { within: host.within, env: cache(host.name) }, { url })
    const [killed, stays] = [await join(first), await join(second)]
    await run.step(4)
    const before = await statusOf(run.folder, bus.within)
    killed.kill('SIGKILL')
    await run.recover(Date.now())
    const comes = await join(added)
    await run.step(run.steps + 2)
    const after = await statusOf(run.folder, bus.within)
    await second.cable('down')
    await sleep(CABLE_MS)
    await second.cable('up')
    await run.recover(Date.now())
    lab.figures['actors before and after'] = `${before.actors.length} and ${after.actors.length}`
    const heardOf = (status: RunStatus, pid: number) => status.actors.some(({ actor }) => actor.includes(`-${pid}-`))
    lab.expect(heardOf(before, killed.pid) && heardOf(before, stays.pid), 'visible', 'status did not show both joiners')
    lab.expect(!heardOf(after, killed.pid), 'visible', 'status shows the killed joiner')
    lab.expect(heardOf(after, comes.pid), 'visible', 'status does not show the joiner that was added')
    await run.prove()
  },
}

async function statusOf(folder: string, within: readonly string[]): Promise<RunStatus> {
  const { stdout, stderr } = await program(['status', folder, '--json'], { within })
  const line = stdout.trim().split('\n').at(-1)
  if (line === undefined || line === '') throw new Error(`status said nothing: ${stderr}`)
  return JSON.parse(line) as RunStatus
}
