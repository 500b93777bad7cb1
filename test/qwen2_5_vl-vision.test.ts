import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { Graph } from '../models/graph/graph.ts'
import { mul, reduceSum } from '../models/graph/ops.ts'
import { Parameters } from '../models/layers/parameters.ts'
import { Session } from '../models/runtime/session.ts'
import { f32, type TensorMap, type Weights } from '../models/tensor.ts'
import type { Picture, VisionInput } from '../models/vlm/family.ts'
import { withGradients } from '../models/vlm/graphs.ts'
import { loadQwen25VlConfig, type VisionConfig } from '../models/vlm/qwen2_5_vl/config.ts'
import { qwen25VlVision } from '../models/vlm/qwen2_5_vl/vision.ts'
import { addWeights } from '../models/vlm/weights.ts'
import { TINY, openTiny, type TinyVariant } from './support/tiny-variant.ts'
import { rng } from './support/rng.ts'

let tiny: TinyVariant
let config: VisionConfig
const sessions = new Map<string, Promise<Session>>()
beforeAll(async () => {
  tiny = await openTiny(TINY[1])
  config = (await loadQwen25VlConfig(`${tiny.dir}/checkpoint`)).vision
})
afterAll(async () => {
  await Promise.all([...sessions.values()].map(async (session) => (await session).release()))
  await tiny.dispose()
})

/** A picture of noise with rows × cols image tokens. */
function noise([rows, cols]: readonly [number, number], random: () => number): Picture {
  const size = 3 * config.temporalPatch * config.patch ** 2
  const data = Float32Array.from({ length: rows * cols * config.merge ** 2 * size }, () => 2 * random() - 1)
  const pixels = f32(data, [rows * cols, config.merge ** 2, size])
  return { layout: { rows, cols, features: rows * cols }, uint8: new Uint8Array(0), inputs: { pixels } }
}

/** Features of a pass, and the gradient of their sum weighted by `weights` of the same shape. */
async function run(input: VisionInput, vision = config, weights?: Float32Array): Promise<TensorMap> {
  const key = `${input.graph} ${vision.fullAttention.join()} ${weights !== undefined}`
  let session = sessions.get(key)
  if (!session) {
    const graph = new Graph()
    const own = Object.entries(tiny.network.weights).map(([name, { dims }]) => [name, dims] as const)
    const params = new Parameters(graph, {}, new Map(own), null)
    const features = qwen25VlVision(vision).features(params, input)
    const loss = reduceSum(mul(features, graph.input('weights', 'float32', features.dims)))
    const outputs = weights ? withGradients({ recompute: 'nothing' }, params, loss) : {}
    session = Session.create(graph, { ...outputs, features }, { threads: 1 })
    sessions.set(key, session)
  }
  const hidden = tiny.architecture.text.hiddenSize
  const feeds = weights && { weights: f32(weights, [weights.length / hidden, hidden]) }
  return (await session).run({ ...tiny.network.weights, ...input.feeds, ...feeds })
}

/** Those among the outputs of `run`. */
const gradientsOf = (outputs: TensorMap): Weights =>
  Object.fromEntries(Object.entries(outputs).filter(([name]) => name.startsWith('grad:'))) as Weights

const grids = fc.array(fc.tuple(fc.integer({ min: 1, max: 5 }), fc.integer({ min: 1, max: 5 })), {
  ...{ minLength: 1, maxLength: 4 },
})

it('several pictures in one pass = each alone, features and gradients', async () => {
  const vision = qwen25VlVision(config)
  await fc.assert(
    fc.asyncProperty(grids, fc.integer(), async (all, seed) => {
      const random = rng(seed)
      const pictures = all.map((grid) => noise(grid, random))
      const hidden = tiny.architecture.text.hiddenSize
      const total = all.reduce((n, [rows, cols]) => n + rows * cols * hidden, 0)
      const weights = Float32Array.from({ length: total }, () => random() - 0.5)
      const together = await run(vision.join(pictures), config, weights)
      const { features } = together
      expect(features!.dims).toEqual([total / hidden, hidden])
      const parts: Weights[] = []
      let at = 0
      for (const pass of vision.passes(pictures)) {
        const alone = (await run(pass)).features!.data as Float32Array
        expectClose((features!.data as Float32Array).subarray(at, at + alone.length), alone, 1e-4)
        parts.push(gradientsOf(await run(pass, config, weights.slice(at, at + alone.length))))
        at += alone.length
      }
      expect(at).toBe(total)
      const sums = Object.entries(addWeights(parts))
      const top = Math.max(...sums.map(([, { data }]) => largest(data)))
      for (const [name, { data }] of sums)
        expectClose(together[name]!.data as Float32Array, data, 1e-3 * Math.max(largest(data), 1e-3 * top))
    }),
    { numRuns: 6 },
  )
})

describe('without layers that see the whole picture', () => {
  it('a patch changes the features of its window only', async () => {
    const windowed = { ...config, fullAttention: [] }
    const [rows, cols] = [5, 3]
    const before = noise([rows, cols], rng(1))
    // The token in row 2, column 1: with windows of 2 × 2 tokens its neighbours are rows 2 and 3, columns 0 and 1.
    const changed = 2 * cols + 1
    const { data, dims } = before.inputs['pixels']!
    const values = Float32Array.from(data as Float32Array)
    const size = values.length / (rows * cols)
    values.fill(0.3, changed * size, changed * size + 10)
    const after = { ...before, inputs: { pixels: f32(values, dims) } }
    const vision = qwen25VlVision(windowed)
    const [a, b] = [await run(vision.join([before]), windowed), await run(vision.join([after]), windowed)]
    const hidden = tiny.architecture.text.hiddenSize
    const row = (from: TensorMap, token: number) =>
      [...(from.features!.data as Float32Array)].slice(token * hidden, (token + 1) * hidden).join()
    const differing = Array.from({ length: rows * cols }, (_, token) => token).filter((t) => row(a, t) !== row(b, t))
    expect(differing).toEqual([2 * cols, 2 * cols + 1, 3 * cols, 3 * cols + 1])
  })
})

const largest = (data: Float32Array): number => data.reduce((most, x) => Math.max(most, Math.abs(x)), 0)

function expectClose(actual: Float32Array, expected: Float32Array, tolerance: number): void {
  expect(actual.length).toBe(expected.length)
  expect(largest(actual.map((x, i) => x - expected[i]!))).toBeLessThanOrEqual(tolerance)
}
