/** Whether a device can be used at all, found out before anything starts. */
import { Graph } from '../graph/graph.ts'
import { add } from '../graph/ops.ts'
import { f32 } from '../tensor.ts'
import { type Device, Session } from './session.ts'

/** The device that was asked for cannot compute; the message says why and what to do. */
export class DeviceError extends Error {
  override name = 'DeviceError'
}

/** `auto` is the CPU: the other execution providers must be asked for by name. Throws DeviceError when it cannot compute. */
export async function openDevice(wanted: Device | 'auto' = 'auto'): Promise<Device> {
  if (wanted === 'auto' || wanted === 'cpu') return 'cpu'
  const graph = new Graph()
  const x = graph.input('x', 'float32', [1])
  try {
    const session = await Session.create(graph, { y: add(x, 1) }, { device: wanted })
    await session.run({ x: f32([1], [1]) })
    await session.release()
  } catch (cause) {
    // What comes before are places in onnxruntime's sources.
    const reason = (cause as Error).message.replace(/^.*?(?=Failed to|backend)/s, '').trim()
    throw new DeviceError(`the device "${wanted}" cannot be used here (${reason}); choose the device cpu`, { cause })
  }
  return wanted
}
