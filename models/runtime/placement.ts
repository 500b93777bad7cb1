/** What a graph leaves to the CPU when it runs on another device. */
import type { PlacedNode, TensorType } from './profile.ts'
import type { Device } from './session.ts'

/** Sizes are vectors of integers no longer than a shape. */
const LONGEST_SHAPE = 8

const PROVIDERS: Readonly<Record<Device, string>> = {
  cpu: 'CPUExecutionProvider',
  webgpu: 'WebGpuExecutionProvider',
  cuda: 'CUDAExecutionProvider',
  coreml: 'CoreMLExecutionProvider',
  dml: 'DmlExecutionProvider',
}

export interface Placement {
  /** Nodes on the device. */
  readonly device: number
  /**
   * Nodes on the CPU, by op, that compute sizes: all that goes in and comes out are a few integers, known without a
   * look at the device's memory. onnxruntime puts them there on purpose; no tensor waits for them to be copied.
   */
  readonly sizes: Readonly<Record<string, number>>
  /** Every other node on the CPU, by op: tensors are copied from the device and back for it. */
  readonly fallbacks: Readonly<Record<string, number>>
  /** Copies between nodes of the device and of the CPU, of whatever size. */
  readonly copies: Readonly<Record<string, number>>
}

export function placementOf(nodes: readonly PlacedNode[], wanted: Device): Placement {
  const [sizes, fallbacks, copies]: Record<string, number>[] = [{}, {}, {}]
  let device = 0
  for (const node of nodes) {
    const kind = kindOf(node, PROVIDERS[wanted])
    if (kind === 'device') device++
    else {
      const counts = { size: sizes!, fallback: fallbacks!, copy: copies! }[kind]
      counts[node.op] = (counts[node.op] ?? 0) + 1
    }
  }
  return { device, sizes: sizes!, fallbacks: fallbacks!, copies: copies! }
}

function kindOf(
  { op, provider, inputs, outputs }: PlacedNode,
  wanted: string,
): 'device' | 'size' | 'fallback' | 'copy' {
  if (op.startsWith('Memcpy')) return 'copy'
  if (provider === wanted) return 'device'
  return [...inputs, ...outputs].every(isSize) ? 'size' : 'fallback'
}

function isSize({ dtype, dims }: TensorType): boolean {
  return /^u?int\d+$/.test(dtype) && dims.length <= 1 && dims.reduce((n, d) => n * d, 1) <= LONGEST_SHAPE
}
