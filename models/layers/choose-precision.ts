/** Which precision samples fastest on this machine: measured on layers of the model's own dimensions. */
import { Graph, type Value } from '../graph/graph.ts'
import { Session, type SessionOptions } from '../runtime/session.ts'
import { f32, type HostTensor, type TensorMap, type Weights } from '../tensor.ts'
import { Parameters } from './parameters.ts'
import type { Precision } from './precision.ts'
import type { TextConfig } from './text-config.ts'

/** What is compared. 4 bits move the logprobs of samples ten times as far as 8 do: they must be asked for. */
const CANDIDATES = ['fp32', 'int8'] as const satisfies readonly Precision[]
type Candidate = (typeof CANDIDATES)[number]

export interface PrecisionChoice {
  readonly precision: Candidate
  /** Milliseconds of the matrix products of one decoding step. */
  readonly milliseconds: Readonly<Record<Candidate, number>>
  /** Relative error of the 8-bit products. */
  readonly error: number
}

/** Rounding is another sampler: it must pay. */
const LEAST_GAIN = 1.15
/** Processors without instructions for bytes saturate their sums; what they compute is far beyond rounding errors. */
const MOST_ERROR = 0.03
/** Outputs of a layer that are measured; of a vocabulary this is enough to know the rest. */
const MOST_OUTPUTS = 4096
const LEAST_RUNS = 5
const MOST_MS = 1200

interface Layer {
  readonly into: number
  readonly out: number
  /** How often a step computes it. */
  readonly times: number
}

function layersOf({ hiddenSize, headDim, heads, kvHeads, intermediate, layers, vocab }: TextConfig): Layer[] {
  return [
    { into: hiddenSize, out: heads * headDim, times: layers },
    { into: hiddenSize, out: kvHeads * headDim, times: 2 * layers },
    { into: heads * headDim, out: hiddenSize, times: layers },
    { into: hiddenSize, out: intermediate, times: 2 * layers },
    { into: intermediate, out: hiddenSize, times: layers },
    { into: hiddenSize, out: vocab, times: 1 },
  ]
}

/** Times one decoding step of `rows` samples; takes about two seconds for a large model. */
export async function choosePrecision(
  text: TextConfig,
  rows: number,
  options: Pick<SessionOptions, 'threads'>,
): Promise<PrecisionChoice> {
  const milliseconds = { fp32: 0, int8: 0 }
  let error = 0
  const layers = layersOf(text)
  for (const layer of layers) {
    const measured = await measure(layer, rows, MOST_MS / layers.length, options)
    for (const precision of CANDIDATES) milliseconds[precision] += layer.times * measured.milliseconds[precision]
    error = Math.max(error, measured.error)
  }
  const pays = milliseconds.fp32 >= LEAST_GAIN * milliseconds.int8 && error <= MOST_ERROR
  return { precision: pays ? 'int8' : 'fp32', milliseconds, error }
}

/** In turn, so that what else the machine does hits all candidates alike. */
async function measure({ into, out: all }: Layer, rows: number, budget: number, options: SessionOptions) {
  const out = Math.min(all, MOST_OUTPUTS)
  const weights = { 'layer.weight': noise([out, into]) }
  const feeds = { x: noise([rows, into]) }
  const sessions = await Promise.all(CANDIDATES.map((precision) => sessionOf(weights, precision, into, options)))
  try {
    const [exact, rounded] = await Promise.all(sessions.map(async (s) => (await s.run(feeds)).y!.data as Float32Array))
    const times = CANDIDATES.map((): number[] => [])
    const start = performance.now()
    for (let run = 0; run < LEAST_RUNS || performance.now() - start < budget; run++)
      for (const [i, session] of sessions.entries()) times[i]!.push(await timeOf(session, feeds))
    const [fp32, int8] = times.map((list) => (median(list) * all) / out)
    return { milliseconds: { fp32: fp32!, int8: int8! }, error: relativeError(rounded!, exact!) }
  } finally {
    await Promise.all(sessions.map((session) => session.release()))
  }
}

function sessionOf(weights: Weights, precision: Candidate, into: number, options: SessionOptions): Promise<Session> {
  const graph = new Graph()
  const x: Value = graph.input('x', 'float32', ['M', into])
  const y = new Parameters(graph, weights, new Map(), null, { precision }).linear('layer', x)
  return Session.create(graph, { y }, { ...options, spin: false })
}

async function timeOf(session: Session, feeds: TensorMap): Promise<number> {
  const start = performance.now()
  await session.run(feeds)
  return performance.now() - start
}

/** Numbers between −1 and 1 without a pattern (xorshift, Marsaglia 2003). */
function noise(dims: readonly [number, number]): HostTensor<'float32'> {
  const data = new Float32Array(dims[0] * dims[1])
  let state = 1 + data.length
  for (let i = 0; i < data.length; i++) {
    state ^= state << 13
    state ^= state >>> 17
    state ^= state << 5
    data[i] = state / 2 ** 31
  }
  return f32(data, dims)
}

const median = (values: readonly number[]): number => values.toSorted((a, b) => a - b)[values.length >> 1]!

function relativeError(actual: Float32Array, exact: Float32Array): number {
  let [wrong, all] = [0, 0]
  for (let i = 0; i < exact.length; i++) {
    wrong += (actual[i]! - exact[i]!) ** 2
    all += exact[i]! ** 2
  }
  return Math.sqrt(wrong / all)
}
