/**
 * Floating-point operations of the matrix products with weights. Attention, norms and sampling are not counted, so a
 * share of the GEMM bound computed from these is a lower bound.
 */
import { graphFlops, type SymbolSizes } from '../../models/graph/flops.ts'
import { BYTES_PER_WEIGHT, type Precision } from '../../models/layers/precision.ts'
import { sizeOf } from '../../models/tensor.ts'
import type { Architecture, Picture, VisionInput } from '../../models/vlm/family.ts'
import { extendGraph, type GraphContext, sizesOnly, visionGraph } from '../../models/vlm/graphs.ts'
import { samplerGraph } from '../../models/vlm/sampler.ts'

export interface Work {
  /** Tokens through the text layers. */
  readonly tokens: number
  /** Tokens with vocabulary logits. */
  readonly predicted: number
  /** Pictures through the vision tower. */
  readonly pictures: number
}

/** Passes over each part: 1 forward; 2 with the gradient of its input; 3 with that of its weights as well. */
export interface Passes {
  readonly text: number
  readonly head: number
  readonly vision: number
}

export const FORWARD: Passes = { text: 1, head: 1, vision: 1 }
/** Frozen weights need no gradient of their own; frozen features none at all. */
export const LORA_UPDATE: Passes = { text: 2, head: 2, vision: 1 }
export const FULL_UPDATE: Passes = { text: 3, head: 3, vision: 3 }

/** Operations of one pass over one unit of each part, counted in the graphs that compute it. */
export function flopsPerUnit(architecture: Architecture, picture: Picture): Record<keyof Passes, number> {
  const context = sizesOnly(architecture)
  const text = extendGraph(context, 'beside', 'fp32')
  const head = samplerGraph(context, 'one', 'fp32')
  const token = { I: 1, S: 1, T: 0, F: 1, P: 1 }
  return {
    text: graphFlops(text.graph, Object.values(text.outputs), token).weights,
    head: graphFlops(head.graph, Object.values(head.outputs), { P: 1, G: 1 }).weights,
    vision: architecture.vision.passes([picture]).reduce((n, input) => n + passFlops(context, input), 0),
  }
}

function passFlops(context: GraphContext, input: VisionInput): number {
  const { graph, outputs } = visionGraph(context, input)
  const symbols: Record<string, number> = {}
  for (const { kind, name, value } of graph.sources) {
    if (kind !== 'input') continue
    value.dims.forEach((d, axis) => {
      if (typeof d === 'string' && !d.includes('*')) symbols[d] = input.feeds[name]!.dims[axis]!
    })
  }
  return graphFlops(graph, Object.values(outputs), symbols satisfies SymbolSizes).weights
}

export function flops(unit: Record<keyof Passes, number>, work: Work, passes: Passes): number {
  return (
    unit.text * work.tokens * passes.text +
    unit.head * work.predicted * passes.head +
    unit.vision * work.pictures * passes.vision
  )
}

/** Bytes of the weights that every step of decoding reads: the layers of the text model and the head. */
export function decodedBytes({ text, weights }: Architecture, precision: Precision = 'fp32'): number {
  const inStep = (name: string) => name.startsWith(`${text.prefix}.layers.`) || name === 'lm_head.weight'
  const layers = weights.reduce((n, { name, dims }) => (inStep(name) ? n + sizeOf(dims) : n), 0)
  return BYTES_PER_WEIGHT[precision] * (layers + (text.tied ? text.vocab * text.hiddenSize : 0))
}

/** Bytes of the keys and values of one token. */
export const keyBytes = ({ text }: Architecture): number => 4 * 2 * text.layers * text.kvHeads * text.headDim
