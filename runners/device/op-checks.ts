/** Every op on a device, forward alone and with its gradients, against the CPU. */
import { caseGraph, opCases } from '../../models/graph/op-cases.ts'
import type { Value } from '../../models/graph/graph.ts'
import type { OpName } from '../../models/graph/op-attrs.ts'
import { Profile } from '../../models/runtime/profile.ts'
import { type Device, Session } from '../../models/runtime/session.ts'
import type { TensorMap } from '../../models/tensor.ts'
import { type DeviceCheck, type DeviceResult, errorOf, largestError, placed } from './finding.ts'

/** |device − CPU| ≤ this · (1 + |CPU|): exponentials of GPUs are right to about 1e-6. */
const TOLERANCE = 1e-4

export const opChecks: readonly DeviceCheck[] = (Object.keys(opCases) as OpName[]).map((op) => ({
  name: `op ${op}`,
  async *run(device) {
    yield await checkOp(op, device)
  },
}))

async function checkOp(op: OpName, device: Device): Promise<DeviceResult> {
  const profile = new Profile()
  let maxError = 0
  let right = true
  for (const c of opCases[op]) {
    const { graph, outputs, feeds } = caseGraph(c)
    // What nothing else needs may be left out or fused: another graph.
    for (const wanted of [outputs, { y: outputs['y']! }]) {
      const run = async (on: Device, profiled?: Profile): Promise<TensorMap> => {
        const session = await Session.create(graph, wanted, { device: on, threads: 1, ...(profiled && { profile }) })
        return session.run(feeds).finally(() => session.release())
      }
      const error = difference(wanted, await run(device, profile), await run('cpu'))
      maxError = Math.max(maxError, error)
      right &&= error <= (c.tolerance ?? TOLERANCE)
    }
  }
  const { status, detail, placement } = placed(op, profile.nodes, device)
  return {
    check: `op ${op}`,
    status: right ? status : 'fail',
    detail: `${right ? '' : 'wrong: '}off by ${maxError.toExponential(1)}; ${detail}`,
    ...errorOf(maxError),
    ...(placement && { placement }),
  }
}

function difference(outputs: Readonly<Record<string, Value>>, actual: TensorMap, expected: TensorMap): number {
  return Math.max(...Object.keys(outputs).map((name) => largestError(actual[name]!.data, expected[name]!.data)))
}
