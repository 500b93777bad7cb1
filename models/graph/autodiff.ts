/** Reverse-mode differentiation: adds the nodes of the backward pass to the graph. */
import { type Node, GraphError, showDims, type Value } from './graph.ts'
import type { OpName } from './op-attrs.ts'
import * as op from './ops.ts'
import { vjps } from './vjps.ts'

/**
 * Gradients of a scalar with respect to `wrt`, in their order. A value that the loss does not depend on gets zeros.
 * Only nodes on a path from `wrt` to the loss are differentiated, so frozen weights cost nothing.
 */
export function grad(loss: Value, wrt: readonly Value[]): readonly Value[] {
  if (loss.rank !== 0) throw new GraphError(`grad: the loss must be a scalar, not ${showDims(loss.dims)}`)
  const graph = loss.graph
  const active = new Set<Value>(wrt)
  for (const node of graph.nodes)
    if (node.inputs.some((v) => active.has(v))) for (const v of node.outputs) active.add(v)
  const grads = new Map<Value, Value>([[loss, op.scalar(graph, 1)]])
  // Backward nodes are appended while we walk: iterate over a copy of the forward nodes.
  for (const node of [...graph.nodes].reverse()) {
    const outer = node.outputs.map((v) => grads.get(v))
    if (outer[0] === undefined || !node.inputs.some((v) => active.has(v))) continue
    if (outer.slice(1).some((g) => g !== undefined))
      throw new GraphError(`${node.op}: only its first output is differentiable`)
    const inner = differentiate(node, outer)
    node.inputs.forEach((v, i) => {
      const g = inner[i]
      if (!g || !active.has(v)) return
      const sofar = grads.get(v)
      grads.set(v, sofar ? op.add(sofar, g) : g)
    })
  }
  return wrt.map((v) => grads.get(v) ?? op.broadcastTo(op.scalar(graph, 0), v.dims))
}

function differentiate<K extends OpName>(node: Node<K>, g: readonly (Value | undefined)[]): readonly (Value | null)[] {
  return vjps[node.op](node, g)
}
