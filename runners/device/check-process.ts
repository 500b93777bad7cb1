/** A process that runs checks on a device: a driver may take it down. */
import { reasonOf } from '../../models/io/json-file.ts'
import type { Device } from '../../models/runtime/session.ts'
import { deviceChecks } from './checks.ts'
import type { DeviceCheck } from './finding.ts'
import { type Answer, commandSchema } from './protocol.ts'

const say = (answer: Answer): void => void process.send?.(answer)

async function run(check: DeviceCheck, device: Device): Promise<void> {
  say({ said: 'begun', check: check.name })
  try {
    for await (const result of check.run(device)) say({ said: 'found', result })
  } catch (error) {
    say({ said: 'found', result: { check: check.name, status: 'fail', detail: reasonOf(error) } })
  }
  say({ said: 'ended', check: check.name })
}

process.once('message', (message) => {
  const { device, checks } = commandSchema.parse(message)
  const wanted = deviceChecks.filter(({ name }) => checks.includes(name))
  void (async () => {
    for (const check of wanted) await run(check, device)
    process.disconnect()
  })()
})
