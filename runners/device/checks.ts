/** The checks of a device, in the order in which they run. */
import { openDevice } from '../../models/runtime/device.ts'
import type { DeviceCheck } from './finding.ts'
import { graphChecks } from './graph-checks.ts'
import { opChecks } from './op-checks.ts'

/** Whether the device computes at all: without it no other check makes sense. */
export const FIRST = 'device'

export const deviceChecks: readonly DeviceCheck[] = [
  {
    name: FIRST,
    async *run(device) {
      await openDevice(device)
      yield { check: FIRST, status: 'ok', detail: `${device} computes` }
    },
  },
  ...opChecks,
  ...graphChecks,
]
