/** Sampling of next tokens as a graph: logits never leave it. */
import { Graph, type Value } from '../graph/graph.ts'
import {
  add,
  arange,
  cast,
  concat,
  constant,
  cumsum,
  exp,
  gather,
  greaterOrEqual,
  log,
  maximum,
  minimum,
  mul,
  neg,
  pad,
  reduceSum,
  reshape,
  slice,
  softmax,
  sub,
} from '../graph/ops.ts'
import { logits, MASKED } from '../layers/text.ts'
import type { Precision } from '../layers/precision.ts'
import { f32 } from '../tensor.ts'
import { type BuiltGraph, type GraphContext, parameters } from './graphs.ts'

/** The largest float32 below 1. */
const BELOW_ONE = 1 - 2 ** -24
/** Above what rounding makes of the probability of a banned token, below every other one that can be sampled. */
const NOTHING = 1e-37
/** A banned token that outweighs a sampled one by more than this (in nats) leaves it no probability worth telling. */
const WORST = 80

/**
 * Inputs: hidden float32 [P, hidden], uniforms float32 [P, G] in [0, 1) and, unless all temperatures are 1,
 * inverseTemperature float32 [P, 1].
 * Outputs: sampled int32 [P, G], the first token whose cumulative probability exceeds the uniform number, and logprobs
 * float32 [P, G] of the sampled tokens at T = 1, of the distribution that was sampled from: that of rounded weights where
 * `precision` says so.
 *
 * The cumulative sum runs over blocks of the vocabulary, then inside the block that was hit.
 */
export function samplerGraph(context: GraphContext, temperatures: 'one' | 'any', precision: Precision): BuiltGraph {
  const graph = new Graph()
  const { text, banned } = context.architecture
  const { vocab, hiddenSize } = text
  const hidden = graph.input('hidden', 'float32', ['P', hiddenSize])
  const uniforms = graph.input('uniforms', 'float32', ['P', 'G'])
  const z = logits(parameters(context, graph, 'generate', precision), text, hidden)
  const allowed = add(z, constant(graph, f32(ban(vocab, banned), [vocab])))
  const probs = softmax(allowed)
  const tempered =
    temperatures === 'one' ? probs : softmax(mul(allowed, graph.input('inverseTemperature', 'float32', ['P', 1])))
  const sampled = inverseCdf(tempered, uniforms)
  const logprobs = log(maximum(pickMany(probs, sampled), NOTHING))
  const known = banned.filter((id) => id < vocab)
  if (known.length === 0) return { graph, outputs: { sampled, logprobs } }
  // The probability of a sample is that of the model: among all tokens, banned ones included.
  const others = concat(
    known.map((id) => slice(z, -1, id, id + 1)),
    -1,
  )
  const gap = sub(reshape(others, ['P', 1, known.length]), reshape(pickMany(z, sampled), ['P', 'G', 1]))
  const lost = reduceSum(exp(minimum(gap, WORST)), { axes: [-1] })
  return { graph, outputs: { sampled, logprobs: neg(log(add(exp(neg(logprobs)), lost))) } }
}

/** Bias [V] that makes some tokens impossible to sample. */
function ban(vocab: number, banned: readonly number[]): Float32Array {
  const bias = new Float32Array(vocab)
  for (const id of banned) if (id < vocab) bias[id] = MASKED
  return bias
}

/** Weights [P, V] and uniform numbers [P, G] to indices [P, G]. */
function inverseCdf(weights: Value, uniforms: Value): Value {
  const [rows, vocab] = [weights.dim(0), Number(weights.dim(1))]
  const { width, count } = blocksOf(vocab)
  const padding = width * count - vocab
  const table = reshape(padding === 0 ? weights : pad(weights, 1, 0, padding), [rows, count, width])
  const coarse = cumsum(reduceSum(table, { axes: [-1] }), -1)
  const total = slice(coarse, -1, count - 1, count)
  const target = maximum(mul(mul(uniforms, BELOW_ONE), total), NOTHING)
  const block = countUpTo(coarse, target)
  const before = pickMany(pad(coarse, 1, 1, 0), block)
  const first = mul(reshape(arange(weights, 0), [rows, 1]), count)
  const fine = cumsum(gather(reshape(table, [`${count}*${rows}`, width]), add(block, first)), -1)
  // Blocks and their elements are summed in another order: stay inside the block whatever the rounding.
  const most = mul(slice(fine, -1, width - 1, width), BELOW_ONE)
  const inside = maximum(minimum(reshape(sub(target, before), [...block.dims, 1]), most), NOTHING)
  const within = cast(reduceSum(cast(greaterOrEqual(inside, fine), 'float32'), { axes: [-1] }), 'int32')
  return add(mul(block, width), within)
}

/** How many of the cumulative sums [P, K] are at most each target [P, G]. */
function countUpTo(sums: Value, targets: Value): Value {
  const [rows, k] = sums.dims
  const reached = greaterOrEqual(reshape(targets, [...targets.dims, 1]), reshape(sums, [rows!, 1, k!]))
  return cast(reduceSum(cast(reached, 'float32'), { axes: [-1] }), 'int32')
}

/** x [P, K] at index [P, G] → [P, G]. */
function pickMany(x: Value, index: Value): Value {
  const [rows, k] = x.dims
  const offsets = mul(reshape(arange(index, 0), [rows!, 1]), Number(k))
  return reshape(gather(reshape(x, [`${k}*${rows}`, 1]), add(index, offsets)), index.dims)
}

/** About √V blocks; a width that divides V saves a copy. */
function blocksOf(vocab: number): { width: number; count: number } {
  const root = Math.ceil(Math.sqrt(vocab))
  for (let width = root; width <= 4 * root; width++) if (vocab % width === 0) return { width, count: vocab / width }
  return { width: root, count: Math.ceil(vocab / root) }
}
