/** Reverse-mode differentiation: adds the nodes of the backward pass to the graph. */
import { type Node, GraphError, type Segment, showDims, type Value } from './graph.ts'
import type { OpName } from './op-attrs.ts'
import * as op from './ops.ts'
import { vjps } from './vjps.ts'

/**
 * What the backward pass computes again instead of keeping it from the forward pass, segment by segment (Chen et al.
 * 2016): nothing, the float32 copies of 16-bit weights, or all but the inputs of segments.
 */
export type Recompute = 'nothing' | 'weights' | 'all'

/**
 * Gradients of a scalar with respect to `wrt`, in their order. A value that the loss does not depend on gets zeros.
 * Only nodes on a path from `wrt` to the loss are differentiated, so frozen weights cost nothing.
 */
export function grad(loss: Value, wrt: readonly Value[], recompute: Recompute = 'nothing'): readonly Value[] {
  if (loss.rank !== 0) throw new GraphError(`grad: the loss must be a scalar, not ${showDims(loss.dims)}`)
  const { graph } = loss
  const pass = new BackwardPass(loss, wrt)
  // Backward nodes are appended while we walk: iterate over a copy of the forward nodes.
  const forward = [...graph.nodes]
  let end = forward.length
  for (const segment of recompute === 'nothing' ? [] : [...graph.segments].reverse()) {
    pass.through(forward.slice(segment.end, end))
    pass.throughAgain(segment, forward.slice(segment.start, segment.end), recompute === 'all' ? () => true : widens)
    end = segment.start
  }
  pass.through(forward.slice(0, end))
  return wrt.map((v) => pass.grads.get(v) ?? op.broadcastTo(op.scalar(graph, 0), v.dims))
}

/** A step from a 16-bit weight to its float32 copy. */
const widens = ({ inputs }: Node): boolean => inputs[0]?.dtype === 'bfloat16' || inputs[0]?.dtype === 'float16'

class BackwardPass {
  readonly grads: Map<Value, Value>
  /** Values on a path from what is differentiated. */
  readonly #active: Set<Value>

  constructor(loss: Value, wrt: readonly Value[]) {
    this.grads = new Map([[loss, op.scalar(loss.graph, 1)]])
    this.#active = new Set(wrt)
    for (const node of loss.graph.nodes)
      if (node.inputs.some((v) => this.#active.has(v))) for (const v of node.outputs) this.#active.add(v)
  }

  /** Backwards through nodes that are given in forward order. */
  through(nodes: readonly Node[]): void {
    for (const node of nodes.toReversed()) this.#differentiate(node)
  }

  /**
   * The same with copies of the nodes that `again` chooses. They take the inputs of the segment after the gradients that
   * arrive: so they differ from the originals, which common-subexpression elimination would merge them with, and exist no
   * earlier than they are needed. Likewise the gradients of the inputs come after those of the weights, so that nothing
   * waits for the end with the values of its segment.
   */
  throughAgain({ inputs }: Segment, nodes: readonly Node[], again: (node: Node) => boolean): void {
    const arriving = nodes.flatMap(({ outputs }) => outputs.filter((v) => this.grads.has(v)))
    if (arriving.length === 0) return
    const copies = new Map<Value, Value>()
    const gates = [...new Set(arriving.map((v) => this.grads.get(v)!))].filter((g) => g.rank > 0)
    for (const v of inputs) this.#copied(copies, v, op.after(v, gates))
    const now = (v: Value) => copies.get(v) ?? v
    const renewed = nodes.map((node) => {
      const taken = node.inputs.map(now)
      if (again(node)) {
        const fresh = this.#copy(node, taken)
        node.outputs.forEach((v, i) => this.#copied(copies, v, fresh[i]!))
      }
      return { ...node, inputs: taken, outputs: node.outputs.map(now) }
    })
    const before = new Map(this.grads)
    this.through(renewed)
    this.#passOn(inputs, now, before)
  }

  #copy(node: Node, inputs: readonly Value[]): readonly Value[] {
    return inputs[0]!.graph.add(node.op, inputs, node.attrs, node.outputs)
  }

  #copied(copies: Map<Value, Value>, from: Value, to: Value): void {
    copies.set(from, to)
    if (this.#active.has(from)) this.#active.add(to)
    const g = this.grads.get(from)
    if (g) this.grads.set(to, g)
  }

  /** From the copies of a segment's inputs to the inputs themselves. */
  #passOn(inputs: readonly Value[], now: (v: Value) => Value, before: ReadonlyMap<Value, Value>): void {
    const renewed = new Set(inputs.map(now))
    const weights = [...this.grads].filter(([v, g]) => !renewed.has(v) && isSource(v) && before.get(v) !== g)
    for (const v of inputs) {
      const g = this.grads.get(now(v))
      if (g && now(v) !== v)
        this.grads.set(
          v,
          op.after(
            g,
            weights.map(([, w]) => w).filter((w) => w.rank > 0),
          ),
        )
    }
  }

  #differentiate(node: Node): void {
    const outer = node.outputs.map((v) => this.grads.get(v))
    if (outer[0] === undefined || !node.inputs.some((v) => this.#active.has(v))) return
    if (outer.slice(1).some((g) => g !== undefined))
      throw new GraphError(`${node.op}: only its first output is differentiable`)
    const inner = rule(node, outer)
    node.inputs.forEach((v, i) => {
      const g = inner[i]
      if (!g || !this.#active.has(v)) return
      const sofar = this.grads.get(v)
      this.grads.set(v, sofar ? op.add(sofar, g) : g)
    })
  }
}

const isSource = (v: Value): boolean => !v.graph.producer.has(v)

function rule<K extends OpName>(node: Node<K>, g: readonly (Value | undefined)[]): readonly (Value | null)[] {
  return vjps[node.op](node, g)
}
