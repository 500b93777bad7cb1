/** The one place that touches onnxruntime: a graph becomes a session, tensors go in and come out. */
import * as ort from 'onnxruntime-node'
import { type Graph, type Value } from '../graph/graph.ts'
import { toOnnx } from '../graph/onnx.ts'
import { webgpuEmitters } from '../graph/webgpu-emitters.ts'
import {
  type DeviceTensor,
  type DType,
  type HostTensor,
  isHost,
  type TensorMap,
  type Tensor,
  type Tensors,
} from '../tensor.ts'
import type { Profile } from './profile.ts'

export type Device = 'cpu' | 'webgpu' | 'cuda' | 'coreml' | 'dml'

export interface SessionOptions {
  readonly device?: Device
  /** Threads of one operator; default 0 = all cores. */
  readonly threads?: number
  /**
   * Whether threads wait for the next operator of a run by spinning (default): a handover is faster, and costs processor
   * time that others may need. They never spin between runs: the idle threads of one session would take the cores that
   * another needs.
   */
  readonly spin?: boolean
  /** Outputs that `runOn` leaves in the memory of the device. */
  readonly resident?: (output: string) => boolean
  /** Told on release where the nodes of the graph ran. Costs time and a temporary file. */
  readonly profile?: Profile
  /** What the profile calls the graph. */
  readonly name?: string
  /**
   * Whether frozen weights are copied into the order of each matrix product that they are part of (default): faster for
   * few rows, and memory of the session's own instead of pages of the file.
   */
  readonly prepack?: boolean
}

/** Devices whose memory is their own and that sessions can share tensors on. */
export const hasOwnMemory = (device: Device | undefined): boolean => device === 'webgpu'

/**
 * A compiled graph. `run` blocks the thread that it is called on (onnxruntime-node computes synchronously), so the
 * product runs sessions inside a worker thread (model-worker.ts) and never on the thread of a NATS connection.
 */
export class Session {
  readonly #session: ort.InferenceSession
  readonly #inputs: readonly string[]
  readonly #end: () => Promise<void>
  #closed = false

  private constructor(session: ort.InferenceSession, inputs: readonly string[], end: () => Promise<void>) {
    this.#session = session
    this.#inputs = inputs
    this.#end = end
  }

  static async create(
    graph: Graph,
    outputs: Readonly<Record<string, Value>>,
    options: SessionOptions = {},
  ): Promise<Session> {
    const {
      device = 'cpu',
      threads = 0,
      spin = true,
      prepack = true,
      resident = () => false,
      profile,
      name = '',
    } = options
    const model = toOnnx(graph, outputs, device === 'webgpu' ? { emitters: webgpuEmitters } : {})
    const profiling = profile?.start()
    const session = await ort.InferenceSession.create(model.bytes, {
      executionProviders: [device],
      graphOptimizationLevel: 'all',
      // Sizes vary from run to run: plans of one size hold memory that the next size cannot use.
      enableMemPattern: false,
      intraOpNumThreads: threads,
      extra: {
        session: {
          intra_op: { allow_spinning: spin ? '1' : '0' },
          force_spinning_stop: '1',
          disable_prepacking: prepack ? '0' : '1',
          ...(model.folder !== null && { model_external_initializers_file_folder_path: model.folder }),
        },
      },
      externalData: model.external.map(({ path, data }) => ({ path, data })),
      logSeverityLevel: 3,
      // A tensor of WebGPU that is read later ends the process: what is read must be asked for on the host.
      ...(hasOwnMemory(device) && {
        preferredOutputLocation: Object.fromEntries(
          model.outputs.map((output) => [output, resident(output) ? 'gpu-buffer' : 'cpu'] as const),
        ),
      }),
      ...(profiling && { enableProfiling: true, profileFilePrefix: profiling.prefix }),
    })
    const end = async () => {
      if (!profiling) return
      session.endProfiling()
      await profiling.end(name)
    }
    return new Session(session, model.inputs, end)
  }

  /** Feeds may hold more than the graph needs; a missing one is an error that names it. */
  async run(feeds: Tensors): Promise<TensorMap> {
    const results = await this.runOn(feeds)
    const host = Object.entries(results).filter((entry): entry is [string, HostTensor] => isHost(entry[1]))
    return Object.fromEntries(host)
  }

  /** The same; outputs that were asked to stay on the device are tensors of it, to be disposed of by the caller. */
  async runOn(feeds: Tensors): Promise<Tensors> {
    if (this.#closed) throw new Error('this session was released')
    const wrapped: Record<string, ort.Tensor> = {}
    for (const name of this.#inputs) {
      const tensor = feeds[name]
      if (!tensor) throw new Error(`the graph input "${name}" was not fed`)
      wrapped[name] = wrap(tensor)
    }
    const results = await this.#session.run(wrapped)
    return Object.fromEntries(Object.entries(results).map(([name, t]) => [name, unwrap(t)]))
  }

  async release(): Promise<void> {
    this.#closed = true
    await this.#end()
    await this.#session.release()
  }
}

let held = 0
/** Tensors in the memory of devices that nobody has disposed of yet, in this thread. */
export const tensorsOnDevices = (): number => held

class OnDevice implements DeviceTensor {
  #disposed = false

  constructor(readonly tensor: ort.Tensor) {
    held++
  }

  get dtype(): DType {
    return dtypeOf(this.tensor)
  }

  get dims(): readonly number[] {
    return this.tensor.dims
  }

  dispose(): void {
    if (this.#disposed) return
    this.#disposed = true
    held--
    this.tensor.dispose()
  }
}

/** Weights go in at every run, hundreds of them: each is wrapped once. */
const wrappers = new WeakMap<HostTensor, ort.Tensor>()
function wrap(tensor: Tensor): ort.Tensor {
  if (tensor instanceof OnDevice) return tensor.tensor
  if (!isHost(tensor)) throw new Error('a device tensor of another runtime was fed')
  let wrapped = wrappers.get(tensor)
  if (!wrapped) {
    wrapped = new ort.Tensor(tensor.dtype, tensor.data, tensor.dims)
    wrappers.set(tensor, wrapped)
  }
  return wrapped
}

const KNOWN: readonly DType[] = ['float32', 'int32', 'int64', 'uint8', 'bool']

function dtypeOf(tensor: ort.Tensor): DType {
  const dtype = KNOWN.find((d) => d === tensor.type)
  if (!dtype) throw new Error(`a graph output has the unsupported type ${tensor.type}`)
  return dtype
}

function unwrap(tensor: ort.Tensor): Tensor {
  if (tensor.location === 'gpu-buffer') return new OnDevice(tensor)
  return { dtype: dtypeOf(tensor), dims: tensor.dims, data: tensor.data as HostTensor['data'] }
}
