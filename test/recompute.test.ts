/** Weights that stay in their files, and layers that are computed again: the same numbers from less memory. */
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { grad } from '../models/graph/autodiff.ts'
import { Graph } from '../models/graph/graph.ts'
import { toOnnx } from '../models/graph/onnx.ts'
import { after, mul, reduceSum, tanh } from '../models/graph/ops.ts'
import { openCheckpoint } from '../models/io/safetensors.ts'
import { floatsOf } from '../models/io/stored-tensor.ts'
import { Parameters } from '../models/layers/parameters.ts'
import type { GrpoConfig } from '../models/losses/grpo-config.ts'
import type { PolicyGradient, PolicyGroup } from '../models/model.ts'
import { Session } from '../models/runtime/session.ts'
import { f32, type Weights } from '../models/tensor.ts'
import type { LoadOptions, TrainMode } from '../models/vlm/load-options.ts'
import { openModel } from '../models/vlm/open.ts'
import { familyVariants, goldenImage, goldens } from './support/goldens.ts'
import { halfCheckpoint } from './support/half-checkpoint.ts'
import { rng } from './support/rng.ts'

const LOSS: GrpoConfig = {
  loss_type: 'dapo',
  epsilon: 0.2,
  epsilon_high: null,
  delta: null,
  beta: 0.1,
  sampler_cap: null,
}
const LORA: TrainMode = { kind: 'lora', r: 2, alpha: 4, targets: '_proj$', seed: 1 }
const image = { key: 'square', read: () => readFile(goldenImage('square64.png')) }
const completions = [
  { tokens: [40, 50, 60], logprobs: null, advantage: 1, weight: 0.5 },
  { tokens: [40, 70], logprobs: null, advantage: -0.5, weight: 0.25 },
]
const groups: PolicyGroup[] = [
  { image, prompt: 'How many?', completions },
  { image, prompt: 'What is it?', completions },
]

let root: string
beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), 'visplay-recompute-'))
})
afterAll(() => rm(root, { recursive: true }))

/** The update of a model whose trained weights are a little off, so that both halves of an adapter have a gradient. */
async function gradientOf(dir: string, options: LoadOptions): Promise<PolicyGradient> {
  const model = await openModel(dir, { threads: 1, ...options })
  try {
    const random = rng(3)
    const moved = Object.entries(model.trainable()).map(([name, { data, dims }]) => {
      const off = data.map((x) => x + 0.05 * (random() - 0.5))
      return [name, f32(off, dims)] as const
    })
    model.load(Object.fromEntries(moved))
    return await model.policyGradient(groups, LOSS)
  } finally {
    await model.dispose()
  }
}

/** Largest difference, as a share of the largest gradient of the tensor. */
function difference(a: Weights, b: Weights): number {
  expect(Object.keys(a)).toEqual(Object.keys(b))
  return Math.max(
    ...Object.entries(a).map(([name, { data }]) => {
      const most = data.reduce((m, x) => Math.max(m, Math.abs(x)), 1e-4)
      return data.reduce((m, x, i) => Math.max(m, Math.abs(x - b[name]!.data[i]!)), 0) / most
    }),
  )
}

describe.each(familyVariants)('%s', (variant) => {
  const base = join(goldens, variant, 'checkpoint')

  it.each<[string, TrainMode]>([
    ['all weights, the vision tower too', { kind: 'full' }],
    ['an adapter', LORA],
  ])('has the same gradient when layers are computed again: %s', async (_, train) => {
    const kept = await gradientOf(base, { train, recompute: false })
    const again = await gradientOf(base, { train, recompute: true })
    expect(again.loss).toBeCloseTo(kept.loss, 5)
    expect(difference(kept.gradients, again.gradients)).toBeLessThan(1e-4)
  })

  it('has the same gradient however 16-bit weights in shards behind links are held', async () => {
    const dir = await halfCheckpoint(base, await mkdtemp(join(root, 'half-')))
    const fast = await gradientOf(dir, { train: LORA, memory: 'fast' })
    for (const recompute of [true, false]) {
      const lean = await gradientOf(dir, { train: LORA, memory: 'lean', recompute })
      expect(lean.loss).toBeCloseTo(fast.loss, 5)
      expect(difference(fast.gradients, lean.gradients)).toBeLessThan(1e-4)
    }
  })
})

describe('a segment', () => {
  it('is computed a second time in the backward pass, from its inputs, and survives gradients that are not finite', async () => {
    const build = (recompute: 'nothing' | 'all') => {
      const graph = new Graph()
      const x = graph.input('x', 'float32', ['N', 2])
      const y = graph.segment([x], () => tanh(tanh(x)))
      const loss = reduceSum(mul(y, graph.input('g', 'float32', ['N', 2])))
      const [gx] = grad(loss, [x], recompute)
      return { graph, outputs: { loss, gx: gx! } }
    }
    const count = ({ graph, outputs }: ReturnType<typeof build>) =>
      Buffer.from(toOnnx(graph, outputs).bytes).toString('latin1').split('Tanh_').length - 1
    expect(count(build('all')) - count(build('nothing'))).toBe(2)
    const { graph, outputs } = build('all')
    const session = await Session.create(graph, outputs, { threads: 1 })
    const feeds = { x: f32([0, 0, 0.5, 1], [2, 2]), g: f32([Infinity, 2, 3, 4], [2, 2]) }
    const [first, ...rest] = (await session.run(feeds)).gx!.data as Float32Array
    expect(first).toBe(Infinity)
    const slope = (v: number) => (1 - Math.tanh(v) ** 2) * (1 - Math.tanh(Math.tanh(v)) ** 2)
    ;[2, 3 * slope(0.5), 4 * slope(1)].forEach((expected, i) => expect(rest[i]).toBeCloseTo(expected, 5))
    await session.release()
  })

  it('is refused inside another', () => {
    const graph = new Graph()
    const x = graph.input('x', 'float32', [2])
    expect(() => graph.segment([x], () => graph.segment([x], () => tanh(x)))).toThrow('a segment inside a segment')
    expect(() => after(x, [graph.input('i', 'int32', [2])])).toThrow(/after: float32\[2\] int32\[2\]/)
  })
})

describe('a stored weight', () => {
  const rows = 4096

  it.skipIf(process.platform !== 'linux')('is no memory of the session until it is used', async () => {
    const file = join(root, 'big.bin')
    await writeFile(file, new Uint16Array(rows * rows).fill(0x3c00))
    const stored = { dtype: 'BF16', dims: [rows, rows], file, offset: 0, length: 2 * rows * rows } as const
    const anonymous = async () => Number(/RssAnon:\s+(\d+)/.exec(await readFile('/proc/self/status', 'utf8'))![1])
    const cost = async (widening: 'once' | 'use') => {
      const graph = new Graph()
      const x = graph.input('x', 'float32', ['N', rows])
      const y = new Parameters(graph, { 'w.weight': stored }, new Map(), null, { widening: widening }).linear('w', x)
      const before = await anonymous()
      const session = await Session.create(graph, { y }, { threads: 1, prepack: false })
      const held = (await anonymous()) - before
      const result = await session.run({ x: f32(new Float32Array(rows).fill(1), [1, rows]) })
      await session.release()
      expect(result.y!.data[rows - 1]).toBe(rows * 2 ** -7)
      return held
    }
    // 64 MiB as float32.
    expect(await cost('use')).toBeLessThan(30_000)
    expect(await cost('once')).toBeGreaterThan(50_000)
  })

  it('gives its numbers when asked', async () => {
    const base = join(goldens, familyVariants[0]!, 'checkpoint')
    for (const dir of [base, await halfCheckpoint(base, await mkdtemp(join(root, 'floats-')))]) {
      const checkpoint = await openCheckpoint(dir)
      for (const name of checkpoint.names().slice(0, 5))
        expect(floatsOf((await checkpoint.stored(name))!), name).toEqual((await checkpoint.readF32(name)).data)
      await checkpoint.close()
    }
  })
})
