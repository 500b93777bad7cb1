/** The one place that touches onnxruntime: a graph becomes a session, host tensors go in and come out. */
import * as ort from 'onnxruntime-node'
import { type Graph, type Value } from '../graph/graph.ts'
import { toOnnx } from '../graph/onnx.ts'
import type { DType, HostTensor, TensorMap } from '../tensor.ts'

export type Device = 'cpu' | 'webgpu' | 'cuda' | 'coreml' | 'dml'

export interface SessionOptions {
  readonly device?: Device
  /** Threads of one operator; default 0 = all cores. */
  readonly threads?: number
  /**
   * Whether threads wait for work by spinning (default): best for a long run alone. Sessions that take turns should not:
   * the idle threads of one take the cores that the other needs.
   */
  readonly spin?: boolean
  /**
   * Whether frozen weights are copied into the order of each matrix product that they are part of (default): faster for
   * few rows, and memory of the session's own instead of pages of the file.
   */
  readonly prepack?: boolean
}

/**
 * A compiled graph. `run` blocks the thread that it is called on (onnxruntime-node computes synchronously), so the
 * product runs sessions inside a worker thread (model-worker.ts) and never on the thread of a NATS connection.
 */
export class Session {
  readonly #session: ort.InferenceSession
  readonly #inputs: readonly string[]
  #closed = false

  private constructor(session: ort.InferenceSession, inputs: readonly string[]) {
    this.#session = session
    this.#inputs = inputs
  }

  static async create(
    graph: Graph,
    outputs: Readonly<Record<string, Value>>,
    { device = 'cpu', threads = 0, spin = true, prepack = true }: SessionOptions = {},
  ): Promise<Session> {
    const model = toOnnx(graph, outputs)
    const session = await ort.InferenceSession.create(model.bytes, {
      executionProviders: [device],
      graphOptimizationLevel: 'all',
      // Sizes vary from run to run: plans of one size hold memory that the next size cannot use.
      enableMemPattern: false,
      intraOpNumThreads: threads,
      extra: {
        session: {
          intra_op: { allow_spinning: spin ? '1' : '0' },
          disable_prepacking: prepack ? '0' : '1',
          ...(model.folder !== null && { model_external_initializers_file_folder_path: model.folder }),
        },
      },
      externalData: model.external.map(({ path, data }) => ({ path, data })),
      logSeverityLevel: 3,
    })
    return new Session(session, model.inputs)
  }

  /** Feeds may hold more than the graph needs; a missing one is an error that names it. */
  async run(feeds: TensorMap): Promise<TensorMap> {
    if (this.#closed) throw new Error('this session was released')
    const wrapped: Record<string, ort.Tensor> = {}
    for (const name of this.#inputs) {
      const tensor = feeds[name]
      if (!tensor) throw new Error(`the graph input "${name}" was not fed`)
      wrapped[name] = wrap(tensor)
    }
    const results = await this.#session.run(wrapped)
    return Object.fromEntries(Object.entries(results).map(([name, t]) => [name, toHost(t)]))
  }

  async release(): Promise<void> {
    this.#closed = true
    await this.#session.release()
  }
}

/** Weights go in at every run, hundreds of them: each is wrapped once. */
const wrappers = new WeakMap<HostTensor, ort.Tensor>()
function wrap(tensor: HostTensor): ort.Tensor {
  let wrapped = wrappers.get(tensor)
  if (!wrapped) {
    wrapped = new ort.Tensor(tensor.dtype, tensor.data, tensor.dims)
    wrappers.set(tensor, wrapped)
  }
  return wrapped
}

const KNOWN: readonly DType[] = ['float32', 'int32', 'int64', 'uint8', 'bool']

function toHost(tensor: ort.Tensor): HostTensor {
  const dtype = KNOWN.find((d) => d === tensor.type)
  if (!dtype) throw new Error(`a graph output has the unsupported type ${tensor.type}`)
  return { dtype, dims: tensor.dims, data: tensor.data as HostTensor['data'] }
}
