/** Whole logits of chosen tokens: the product never needs them, the goldens do. */
import { gather, flatten2d } from '../../graph/ops.ts'
import { logits } from '../../layers/text.ts'
import { Session, type SessionOptions } from '../../runtime/session.ts'
import { type HostTensor, i32, type Weights } from '../../tensor.ts'
import type { PackedTree } from '../../tree/pack.ts'
import { type GraphContext, scoreTree } from '../graphs.ts'

export class LogitsRunner {
  readonly #sessions = new Map<'given' | 'none', Promise<Session>>()

  constructor(
    private readonly context: GraphContext,
    private readonly options: SessionOptions,
  ) {}

  /**
   * Logits of the tokens at flat indices `rows` of a packed tree.
   *
   * @param features float32 [F, hidden], null for text only.
   * @returns float32 [rows, vocab]
   */
  async run(
    tree: PackedTree,
    features: HostTensor<'float32'> | null,
    weights: Weights,
    rows: ArrayLike<number>,
  ): Promise<Float32Array> {
    const session = await this.#session(features ? 'given' : 'none')
    const dims = [tree.images, tree.length]
    const result = await session.run({
      ...weights,
      ids: i32(tree.ids, dims),
      positions: i32(tree.positions, tree.positionDims),
      ends: i32(tree.ends, dims),
      featureIndex: i32(tree.featureIndex, dims),
      rows: i32(Int32Array.from(rows), [rows.length]),
      ...(features && { features }),
    })
    return result.logits!.data as Float32Array
  }

  async dispose(): Promise<void> {
    await Promise.all([...this.#sessions.values()].map(async (s) => (await s).release()))
    this.#sessions.clear()
  }

  #session(kind: 'given' | 'none'): Promise<Session> {
    let session = this.#sessions.get(kind)
    if (!session) {
      const { graph, params, hidden } = scoreTree({ ...this.context, shared: false }, { kind })
      const rows = graph.input('rows', 'int32', ['R'])
      const output = logits(params, this.context.architecture.text, gather(flatten2d(hidden), rows))
      session = Session.create(graph, { logits: output }, this.options)
      this.#sessions.set(kind, session)
    }
    return session
  }
}
