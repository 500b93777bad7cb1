/** Floating-point operations of a graph, counted from its matrix products. */
import { type Dims, type Graph, GraphError, type Node, type Value } from './graph.ts'
import type { OpName } from './op-attrs.ts'

export interface Flops {
  /** Of products with a weight (or with what is made of one). */
  readonly weights: number
  /** Of products of activations with each other: scores and mixtures of attention. */
  readonly attention: number
}

/** Values of the symbols of sizes. */
export type SymbolSizes = Readonly<Record<string, number>>

/** What computing the outputs takes, two operations for a multiplication and an addition. Throws for a symbol without a size. */
export function graphFlops(graph: Graph, outputs: readonly Value[], symbols: SymbolSizes): Flops {
  const size: Size = (dims) => dims.reduce<number>((n, d) => n * sizeOf(d, symbols), 1)
  const fixed = new Set<Value>(graph.sources.filter((s) => s.kind !== 'input').map((s) => s.value))
  const needed = neededNodes(graph, outputs)
  let [weights, attention] = [0, 0]
  for (const node of needed) {
    if (node.inputs.every((v) => fixed.has(v))) for (const v of node.outputs) fixed.add(v)
    const count = operations(node, size)
    if (node.inputs.some((v) => fixed.has(v))) weights += count
    else attention += count
  }
  return { weights, attention }
}

type Size = (dims: Dims) => number
type Count<K extends OpName> = (node: Node<K>, size: Size) => number

/** Ops that multiply matrices; the others are passes over their operands. */
const products: { readonly [K in OpName]?: Count<K> } = {
  matmul: ({ inputs, outputs, attrs }, size) =>
    2 * size(outputs[0]!.dims) * size([inputs[0]!.dim(attrs.transA ? -2 : -1)]),
  // Scores and mixture: each query over the width of a head, for every key.
  attention: ({ inputs: [q, k] }, size) => 4 * size(q!.dims) * size([k!.dim(1)]),
  tokenLogprob: ({ inputs: [x, weight] }, size) => 2 * size(x!.dims) * size([weight!.dim(0)]),
}

function operations<K extends OpName>(node: Node<K>, size: Size): number {
  return products[node.op]?.(node, size) ?? 0
}

function neededNodes(graph: Graph, outputs: readonly Value[]): Node[] {
  const needed = new Set(outputs)
  for (const node of [...graph.nodes].reverse())
    if (node.outputs.some((v) => needed.has(v))) for (const v of node.inputs) needed.add(v)
  return graph.nodes.filter((node) => node.outputs.some((v) => needed.has(v)))
}

/** A number, or a product of symbols and sums. */
function sizeOf(dim: number | string, symbols: SymbolSizes): number {
  if (typeof dim === 'number') return dim
  return dim.split('*').reduce((n, factor) => {
    const terms = factor.replace(/^\(|\)$/g, '').split('+')
    return n * terms.reduce((m, term) => m + symbolSize(term, symbols), 0)
  }, 1)
}

function symbolSize(term: string, symbols: SymbolSizes): number {
  const value = /^\d+$/.test(term) ? Number(term) : symbols[term]
  if (value === undefined) throw new GraphError(`the symbol ${term} has no size`)
  return value
}
