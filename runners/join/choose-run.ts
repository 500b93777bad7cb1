/** Which run somebody wants to take part in, and its configuration. */
import type { Bus } from '../../bus/bus.ts'
import type { Access } from '../../bus/nats/access.ts'
import { runsAt } from '../../bus/nats/runs.ts'
import { configSchema, type Config } from '../../configs/schema.ts'
import { JoinError } from './join-error.ts'

/** The wanted run, or the only one of the server; throws JoinError that names those that there are. */
export async function chooseRun(access: Access, wanted: string | undefined): Promise<string> {
  const runs = await runsAt(access)
  if (wanted !== undefined) {
    if (runs.includes(wanted)) return wanted
    throw new JoinError(`that server has no run "${wanted}"; it has ${runs.join(', ') || 'none'}`)
  }
  if (runs.length === 1) return runs[0]!
  throw new JoinError(runs.length === 0 ? 'that server has no run yet' : `choose one with --run: ${runs.join(', ')}`)
}

/** What the run was started with: data from the bus, so checked like every other configuration. */
export async function configOf(bus: Bus): Promise<Config> {
  const value = await bus.getValue('config')
  if (value === undefined) throw new JoinError(`run ${bus.run} is not ready yet; join again in a moment`)
  const parsed = configSchema.safeParse(value)
  if (parsed.success) return parsed.data
  const { path, message } = parsed.error.issues[0]!
  throw new JoinError(
    `the configuration of the run is not of this release (${path.join('.')}: ${message}); use the same release of visplay on every machine`,
  )
}
