/**
 * A model as the three graphs that ONNX exports of vision-language models consist of, under the names, types and shapes
 * that optimum and transformers.js use: whoever can run one of theirs can run these.
 */
import { Graph, sum, type Value } from '../graph/graph.ts'
import {
  arange,
  cast,
  concat,
  flatten2d,
  gather,
  greaterOrEqual,
  logicalAnd,
  reshape,
  slice,
  where,
} from '../graph/ops.ts'
import type { LayerCache } from '../layers/attention.ts'
import { positionDims } from '../layers/rotary.ts'
import { logits, MASKED, textModel } from '../layers/text.ts'
import { type BuiltGraph, type GraphContext, parameters } from './graphs.ts'

/** A graph, and what its inputs and outputs are, for people. */
export interface ExportGraph extends BuiltGraph {
  readonly about: Readonly<Record<string, string>>
}

const [BATCH, NEW, PAST] = ['batch_size', 'sequence_length', 'past_sequence_length']

/** Pictures as the processor of transformers returns them → `image_features`. */
export function visionEncoderGraph(context: GraphContext): ExportGraph {
  const graph = new Graph()
  const { features, inputs } = context.architecture.vision.encoder(parameters(context, graph))
  const about = { ...inputs, image_features: 'what replaces the embeddings of the image placeholders, in their order' }
  return { graph, outputs: { image_features: features }, about }
}

/** `input_ids` int64 [B, S] → `inputs_embeds` float32 [B, S, hidden]. */
export function embedTokensGraph(context: GraphContext): ExportGraph {
  const graph = new Graph()
  const ids = graph.input('input_ids', 'int64', [BATCH, NEW])
  const table = parameters(context, graph).weight(`${context.architecture.text.prefix}.embed_tokens.weight`)
  return {
    graph,
    outputs: { inputs_embeds: gather(table, cast(ids, 'int32')) },
    about: { input_ids: 'tokens', inputs_embeds: 'their embeddings' },
  }
}

/**
 * New tokens over those before them: `inputs_embeds` float32 [B, S, hidden], `attention_mask` int64 [B, T+S] (0 = padding),
 * `position_ids` int64 [B, S] or [3, B, S] (M-RoPE), `past_key_values.N.key` and `.value` float32 [B, kvHeads, T, headDim]
 * → `logits` float32 [B, S, vocab], `present.N.key` and `.value` [B, kvHeads, T+S, headDim]. T may be 0.
 */
export function decoderGraph(context: GraphContext): ExportGraph {
  const { text } = context.architecture
  const graph = new Graph()
  const params = parameters(context, graph)
  const embeddings = graph.input('inputs_embeds', 'float32', [BATCH, NEW, text.hiddenSize])
  const mask = graph.input('attention_mask', 'int64', [BATCH, sum([PAST, NEW])])
  const positions = cast(graph.input('position_ids', 'int64', positionDims(text, [BATCH, NEW])), 'int32')
  const cached = (part: string, layer: number) =>
    graph.input(`past_key_values.${layer}.${part}`, 'float32', [BATCH, text.kvHeads, PAST, text.headDim])
  const past = Array.from({ length: text.layers }, (_, layer) => ({
    key: cached('key', layer),
    value: cached('value', layer),
  }))
  const { hidden, cache } = textModel(params, text, { embeddings, positions, bias: causalBias(mask), past })
  return {
    graph,
    outputs: {
      logits: reshape(logits(params, text, flatten2d(hidden)), [BATCH, NEW, text.vocab]),
      ...presents(past, cache),
    },
    about: {
      inputs_embeds: 'embeddings of the new tokens, image features at the placeholders',
      attention_mask: '1 for every token so far and every new one, 0 for padding',
      position_ids: text.mropeSection
        ? 'temporal, vertical and horizontal position of the new tokens (get_rope_index of transformers)'
        : 'positions of the new tokens, padding not counted',
      past_key_values: 'the presents of the run before; empty ones first',
      logits: 'of the token behind each new one',
      present: 'keys and values of all tokens so far and the new ones',
    },
  }
}

/** float32 [B, S, T+S]: new tokens see those before them and themselves, but no padding. */
function causalBias(mask: Value): Value {
  const total = sum([PAST, NEW])
  const index = arange(mask, 1)
  const key = reshape(index, [1, 1, total])
  const query = reshape(slice(index, 0, PAST, total), [1, NEW, 1])
  const real = greaterOrEqual(reshape(cast(mask, 'int32'), [BATCH, 1, total]), 1)
  return where(logicalAnd(real, greaterOrEqual(query, key)), 0, MASKED)
}

function presents(past: readonly LayerCache[], cache: readonly LayerCache[]): Record<string, Value> {
  return Object.fromEntries(
    cache.flatMap(({ key, value }, layer) => [
      [`present.${layer}.key`, concat([past[layer]!.key, key], 2)],
      [`present.${layer}.value`, concat([past[layer]!.value, value], 2)],
    ]),
  )
}
