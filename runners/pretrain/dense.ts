/** Phase 1: the vision tower learns what every patch shows (shape, colour, size of its object, or nothing). */
import { grad } from '../../models/graph/autodiff.ts'
import { Graph, type Value } from '../../models/graph/graph.ts'
import {
  add,
  constant,
  flatten2d,
  linear,
  logSoftmax,
  mul,
  neg,
  pick,
  reduceSum,
  slice,
} from '../../models/graph/ops.ts'
import { Session } from '../../models/runtime/session.ts'
import { f32, type HostTensor, i32, type Weights } from '../../models/tensor.ts'
import { Parameters } from '../../models/layers/parameters.ts'
import type { SmolVlmConfig } from '../../models/vlm/smolvlm/config.ts'
import type { UpdateResult } from '../../models/vlm/network.ts'
import { visionPositionIds } from '../../models/vlm/smolvlm/vision-positions.ts'
import { visionTower } from '../../models/vlm/smolvlm/vision.ts'
import { Random } from '../world/random.ts'

const HEAD = 'patch_head'

/** The tower's own weights and a linear head that exists during this phase only. */
export function denseWeights(weights: Weights, config: SmolVlmConfig, classes: readonly number[]): Weights {
  const tower = Object.entries(weights).filter(([name]) => name.startsWith('model.vision_model.'))
  const outputs = classes.reduce((a, b) => a + b, 0)
  const { hidden } = config.vision
  const random = new Random('patch head')
  const bound = Math.sqrt(1 / hidden)
  const head = Float32Array.from({ length: outputs * hidden }, () => random.uniform(-bound, bound))
  return {
    ...Object.fromEntries(tower),
    [`${HEAD}.weight`]: f32(head, [outputs, hidden]),
    [`${HEAD}.bias`]: f32(new Float32Array(outputs), [outputs]),
  }
}

/** Gradients of the mean cross-entropy of all labels. */
export class DenseTrainer {
  private constructor(
    private readonly session: Session,
    private readonly classes: number,
  ) {}

  static async create(config: SmolVlmConfig, weights: Weights, classes: readonly number[], threads: number) {
    const graph = new Graph()
    const trainable = new Map(Object.entries(weights).map(([name, t]) => [name, t.dims]))
    const params = new Parameters(graph, {}, trainable, null)
    const { image, patch } = config.vision
    const side = image / patch
    const pixels = graph.input('pixels', 'float32', ['B', 3, image, image])
    const positions = constant(graph, i32(visionPositionIds(side, side), [side * side]))
    const hidden = flatten2d(visionTower(params, config, pixels, positions))
    const scores = linear(hidden, params.weight(`${HEAD}.weight`), params.weight(`${HEAD}.bias`))
    const scale = graph.input('scale', 'float32', [])
    const loss = mul(labelLoss(scores, classes), scale)
    const used = [...params.used()]
    const gradients = grad(
      loss,
      used.map(([, v]) => v),
    )
    const outputs = Object.fromEntries(used.map(([name], i) => [`grad:${name}`, gradients[i]!]))
    return new DenseTrainer(await Session.create(graph, { loss, ...outputs }, { threads }), classes.length)
  }

  /** `pixels` float32 [tiles, 3, height, width], `labels` int32 [tiles, patches, kinds]. */
  async gradient(weights: Weights, pixels: HostTensor<'float32'>, labels: Int32Array): Promise<UpdateResult> {
    const rows = labels.length / this.classes
    const feeds: Record<string, HostTensor> = {
      ...weights,
      pixels,
      scale: f32([1 / rows], []),
    }
    for (let kind = 0; kind < this.classes; kind++)
      feeds[`labels${kind}`] = i32(
        Int32Array.from({ length: rows }, (_, row) => labels[row * this.classes + kind]!),
        [rows],
      )
    const result = await this.session.run(feeds)
    const gradients = Object.fromEntries(
      Object.keys(weights).map((name) => {
        const tensor = result[`grad:${name}`]!
        return [name, f32(tensor.data as Float32Array, tensor.dims)]
      }),
    )
    return { gradients, loss: result.loss!.data[0] as number, metrics: {} }
  }

  release(): Promise<void> {
    return this.session.release()
  }
}

/** Summed cross-entropy of the groups of classes, scores [rows, Σ classes]. */
function labelLoss(scores: Value, classes: readonly number[]): Value {
  let at = 0
  return classes
    .map((count, kind) => {
      const labels = scores.graph.input(`labels${kind}`, 'int32', [scores.dim(0)])
      const logp = logSoftmax(slice(scores, -1, at, at + count))
      at += count
      return neg(reduceSum(pick(logp, labels)))
    })
    .reduce(add)
}
