/** The graphs of a model: vision features, generation, scoring, and the updates. One source: the layer functions. */
import { grad } from '../graph/autodiff.ts'
import { Graph, sum, type Value } from '../graph/graph.ts'
import {
  concat,
  flatten2d,
  gather,
  matmul,
  mul,
  reduceSum,
  reshape,
  slice,
  stopGradient,
  sub,
  tokenLogprob,
} from '../graph/ops.ts'
import { headName, embed, textModel, treeBias } from '../layers/text.ts'
import type { Join } from '../layers/attention.ts'
import { type LoraShape, Parameters } from '../layers/parameters.ts'
import type { Precision } from '../layers/precision.ts'
import { positionDims } from '../layers/rotary.ts'
import type { TextArchitecture } from '../layers/text-config.ts'
import type { FrozenWeights } from '../io/stored-tensor.ts'
import { unread } from '../tensor.ts'
import type { Architecture, VisionInput } from './family.ts'
import { type Holdings, holdingsFor, type SessionUse, wideningOf } from './weight-holding.ts'

/** What every graph of a model is built from. */
export interface GraphContext {
  readonly architecture: Architecture
  readonly frozen: FrozenWeights
  /** Names and shapes of trainable tensors. */
  readonly trainable: ReadonlyMap<string, readonly number[]>
  readonly lora: LoraShape | null
  readonly holdings: Holdings
  /** Frozen tensors are fed as the others are: one copy of them for all graphs, in the memory of a device. */
  readonly shared?: boolean
}

/** What graphs are built from that are not computed here: sizes without values. */
export function sizesOnly(architecture: Architecture): GraphContext {
  const frozen = Object.fromEntries(architecture.weights.map(({ name, dims }) => [name, unread(name, dims)]))
  return { architecture, frozen, trainable: new Map(), lora: null, holdings: holdingsFor(0) }
}

export interface BuiltGraph {
  readonly graph: Graph
  readonly outputs: Readonly<Record<string, Value>>
}

/** @param precision of the frozen weights of linear layers, for graphs that only sample. */
export function parameters(
  { frozen, trainable, lora, holdings, shared = false }: GraphContext,
  graph: Graph,
  use: SessionUse = 'train',
  precision: Precision = 'fp32',
): Parameters {
  return new Parameters(graph, frozen, trainable, lora, { widening: wideningOf(holdings[use]), precision, shared })
}

/** Feeds of `input` and of every other of its graph → features [F, hidden]. */
export function visionGraph(context: GraphContext, input: VisionInput): BuiltGraph {
  const graph = new Graph()
  return {
    graph,
    outputs: { features: context.architecture.vision.features(parameters(context, graph, 'vision'), input) },
  }
}

interface TreeInputs {
  readonly ids: Value
  readonly positions: Value
  readonly featureIndex: Value
}

function treeInputs(graph: Graph, text: TextArchitecture, n: string): TreeInputs {
  return {
    ids: graph.input('ids', 'int32', ['I', n]),
    positions: graph.input('positions', 'int32', positionDims(text, ['I', n])),
    featureIndex: graph.input('featureIndex', 'int32', ['I', n]),
  }
}

/**
 * New tokens of token trees over cached keys: prefixes and prompts (nothing cached yet), then one token for each node.
 *
 * Inputs: ids, featureIndex [I, S], positions [I, S] or [3, I, S] (M-RoPE), features float32 [F, hidden], bias float32
 * [I, S, T+S] (cached keys first), pastKey.*, pastValue.* [I, kvHeads, T, headDim], rows int32 [P] (flat token indices).
 * Outputs: hidden float32 [P, hidden] of the rows, and key.*, value.* of the new tokens or, where the graph is to append
 * them, joinedKey.*, joinedValue.* of all [I, kvHeads, T+S, headDim].
 */
export function extendGraph(context: GraphContext, join: Join, precision: Precision): BuiltGraph {
  const { text } = context.architecture
  const graph = new Graph()
  const params = parameters(context, graph, 'generate', precision)
  const { ids, positions, featureIndex } = treeInputs(graph, text, 'S')
  const image = graph.input('features', 'float32', ['F', text.hiddenSize])
  const bias = graph.input('bias', 'float32', ['I', 'S', sum(['S', 'T'])])
  const rows = graph.input('rows', 'int32', ['P'])
  const past = Array.from({ length: text.layers }, (_, layer) => ({
    key: graph.input(`pastKey.${layer}`, 'float32', ['I', text.kvHeads, 'T', text.headDim]),
    value: graph.input(`pastValue.${layer}`, 'float32', ['I', text.kvHeads, 'T', text.headDim]),
  }))
  const embeddings = embed(params, text, ids, image, featureIndex)
  const { hidden, cache } = textModel(params, text, { embeddings, positions, bias, past, join })
  return { graph, outputs: { ...cacheOutputs(cache, join), hidden: gather(flatten2d(hidden), rows) } }
}

function cacheOutputs(cache: readonly { key: Value; value: Value }[], join: Join): Record<string, Value> {
  const [keyName, valueName] = join === 'append' ? ['joinedKey', 'joinedValue'] : ['key', 'value']
  return Object.fromEntries(
    cache.flatMap(({ key, value }, i) => [
      [`${keyName}.${i}`, key],
      [`${valueName}.${i}`, value],
    ]),
  )
}

/** Where the image features of a scoring graph come from. */
export type FeatureSource =
  { readonly kind: 'given' } | { readonly kind: 'pixels'; readonly input: VisionInput } | { readonly kind: 'none' }

export interface Scores {
  readonly graph: Graph
  readonly params: Parameters
  /** float32 [I, N, hidden] */
  readonly hidden: Value
  /** float32 [P], log-probability of each predicted token at T = 1. */
  readonly logps: Value
  /** float32 [P] in nats. */
  readonly entropies: Value
}

/**
 * Teacher-forced scores of a packed tree (models/tree/pack.ts): inputs ids, ends, featureIndex [I, N],
 * positions [I, N] or [3, I, N] (M-RoPE); predictors, targets int32 [chunks, C] (P = chunks·C). Logits exist for one chunk at a time.
 */
export function scoreTree(context: GraphContext, source: FeatureSource, chunks = 1): Scores {
  const { text } = context.architecture
  const graph = new Graph()
  const params = parameters(context, graph, 'train')
  const { ids, positions, featureIndex } = treeInputs(graph, text, 'N')
  const ends = graph.input('ends', 'int32', ['I', 'N'])
  const image = source.kind === 'none' ? null : imageFeatures(context, params, source)
  const embeddings = embed(params, text, ids, image, image && featureIndex)
  const { hidden } = textModel(params, text, { embeddings, positions, bias: treeBias(ends), past: null })
  const predictors = graph.input('predictors', 'int32', [chunks, 'C'])
  const targets = graph.input('targets', 'int32', [chunks, 'C'])
  const flat = flatten2d(hidden)
  const head = params.weight(headName(text), flat)
  const row = (x: Value, chunk: number) => reshape(slice(x, 0, chunk, chunk + 1), ['C'])
  const score = (chunk: number) => {
    const x = gather(flat, row(predictors, chunk))
    const { logp, logZ, probs } = tokenLogprob(x, head, row(targets, chunk))
    // H = log Z − Σ p·z, and Σ p·z = x·(p·W): p·W is there anyway when gradients are asked for.
    const mean = reduceSum(mul(stopGradient(x), matmul(stopGradient(probs), stopGradient(head))), { axes: [-1] })
    return { logps: logp, entropies: sub(stopGradient(logZ), mean) }
  }
  const parts = Array.from({ length: chunks }, (_, chunk) => graph.segment([flat], () => score(chunk)))
  const join = (values: readonly Value[]) => reshape(concatRows(values), [chunks === 1 ? 'C' : `${chunks}*C`])
  return {
    graph,
    params,
    hidden,
    logps: join(parts.map((p) => p.logps)),
    entropies: join(parts.map((p) => p.entropies)),
  }
}

function concatRows(values: readonly Value[]): Value {
  return values.length === 1
    ? values[0]!
    : concat(
        values.map((v) => reshape(v, [1, v.dim(0)])),
        0,
      )
}

function imageFeatures(
  context: GraphContext,
  params: Parameters,
  source: Exclude<FeatureSource, { kind: 'none' }>,
): Value {
  const { text, vision } = context.architecture
  if (source.kind === 'pixels') return vision.features(params, source.input)
  return params.graph.input('features', 'float32', ['F', text.hiddenSize])
}

/** Adds the gradients of a scalar loss with respect to every trainable tensor in use, as outputs `grad:<name>`. */
export function withGradients(
  { recompute }: Pick<Holdings, 'recompute'>,
  params: Parameters,
  loss: Value,
): Record<string, Value> {
  const used = [...params.used()]
  const gradients = grad(
    loss,
    used.map(([, v]) => v),
    recompute,
  )
  return Object.fromEntries(used.map(([name], i) => [`grad:${name}`, gradients[i]!]))
}
