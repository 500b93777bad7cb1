import { cp, mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { grad } from '../models/graph/autodiff.ts'
import { Graph } from '../models/graph/graph.ts'
import { readSafetensors, writeSafetensors } from '../models/io/safetensors.ts'
import { groupAdvantages } from '../models/losses/advantages.ts'
import { fullGrpoConfig, type GrpoConfig } from '../models/losses/grpo-config.ts'
import { grpoLoss, type GrpoInputs } from '../models/losses/grpo.ts'
import { addMetrics, completionMetrics, lossMetrics } from '../models/losses/metrics.ts'
import { tokenWeights } from '../models/losses/normalization.ts'
import { verifyGrpo, type Verified } from '../models/losses/verify-grpo.ts'
import { Session } from '../models/runtime/session.ts'
import { f32 } from '../models/tensor.ts'

const GOLDENS = 'test/goldens/grpo'

describe('GRPO against the reference (TRL)', async () => {
  const byCase = new Map<string, Verified[]>()
  for await (const one of verifyGrpo(GOLDENS)) byCase.set(one.case, [...(byCase.get(one.case) ?? []), one])

  it('has all cases', () => expect(byCase.size).toBe(32))

  it.each([...byCase])('%s: loss, gradient, advantages and metrics', (_, quantities) => {
    expect(quantities.filter((q) => !q.pass)).toEqual([])
    expect(quantities.length).toBeGreaterThan(8)
  })

  it('notices an altered golden', async () => {
    const dir = await mkdtemp(join(tmpdir(), 'grpo-'))
    try {
      await cp(GOLDENS, dir, { recursive: true })
      const file = join(dir, 'dapo.safetensors')
      const tensors = await readSafetensors(file)
      tensors.grad_logps!.data[3] = 0.5
      await writeSafetensors(file, tensors)
      const failed: string[] = []
      for await (const q of verifyGrpo(dir)) if (!q.pass) failed.push(`${q.case} ${q.quantity}`)
      expect(failed).toEqual(['dapo grad_logps'])
    } finally {
      await rm(dir, { recursive: true })
    }
  })
})

const BASE: GrpoConfig = {
  loss_type: 'bnpo',
  epsilon: 0.2,
  epsilon_high: 0.28,
  delta: null,
  beta: 0,
  sampler_cap: null,
}
/** Rows of values per input; `T` and `B` follow from `logps`. */
type Rows = { readonly [K in keyof GrpoInputs]: readonly number[][] }

/** Loss, gradient and metrics of rows; a vector is given as one number per row. */
async function evaluate(rows: Rows, config: GrpoConfig) {
  const graph = new Graph()
  const entries = Object.entries(rows).map(([name, values]) => {
    const vector = name === 'advantages' || name === 'weights' || name === 'counts'
    const value = graph.input(name, 'float32', vector ? ['B'] : ['B', 'T'])
    return { name, value, tensor: f32(values.flat(), vector ? [values.length] : [values.length, values[0]!.length]) }
  })
  const inputs = Object.fromEntries(entries.map((e) => [e.name, e.value])) as unknown as GrpoInputs
  const { loss, metrics } = grpoLoss(inputs, fullGrpoConfig(config))
  const outputs = { ...metrics, loss, gradient: grad(loss, [inputs.logps])[0]! }
  const session = await Session.create(graph, outputs, { threads: 1 })
  const run = await session.run(Object.fromEntries(entries.map((e) => [e.name, e.tensor])))
  await session.release()
  const { loss: total, gradient, ...sums } = run
  return {
    loss: Number(total!.data[0]),
    gradient: Array.from(gradient!.data, Number),
    sums: Object.fromEntries(Object.entries(sums).map(([name, t]) => [name, Number(t.data[0])])),
  }
}

const LOGPS = [
  [-0.4, -1.2, -0.7],
  [-2.1, -0.3, -0.9],
  [-0.6, -0.8, -1.9],
  [-1.1, -0.2, -0.5],
]
const OLD = [
  [-0.7, -1.1, -0.8],
  [-1.6, -0.2, -1.3],
  [-0.6, -1.3, -1.7],
  [-1.0, -0.4, -0.6],
]
const MASK = [
  [1, 1, 1],
  [1, 1, 0],
  [1, 0, 0],
  [1, 1, 1],
]
const ADVANTAGES = [[1.2], [-0.7], [-0.9], [0.4]]
const LENGTHS = [3, 2, 1, 3]
const weightRows = (weights: Float32Array) => Array.from(weights, (w) => [w])
const WEIGHTS = weightRows(tokenWeights('bnpo', LENGTHS, { maxCompletionLength: 3 }))
const ROWS: Rows = { logps: LOGPS, oldLogps: OLD, mask: MASK, advantages: ADVANTAGES, weights: WEIGHTS }
const rowsOf = (rows: Rows, pick: readonly number[]): Rows => ({
  ...rows,
  ...Object.fromEntries(Object.entries(rows).map(([name, values]) => [name, pick.map((b) => values[b]!)])),
})

describe('GRPO in micro-batches and with shared completions', () => {
  const config: GrpoConfig = { ...BASE, beta: 0.1, sampler_cap: 1.1 }
  const full: Rows = { ...ROWS, refLogps: OLD, samplerLogps: LOGPS.map((r) => r.map((x) => x - 0.05)), entropies: MASK }

  it('adds over micro-batches: loss, gradient, metrics', async () => {
    const whole = await evaluate(full, config)
    const parts = [await evaluate(rowsOf(full, [0, 1]), config), await evaluate(rowsOf(full, [2, 3]), config)]
    expect(parts[0]!.loss + parts[1]!.loss).toBeCloseTo(whole.loss, 6)
    expect(parts.flatMap((p) => p.gradient)).toEqual(whole.gradient)
    const added = lossMetrics(addMetrics(parts.map((p) => p.sums)), 'reasoner/')
    const direct = lossMetrics(whole.sums, 'reasoner/')
    expect(Object.keys(added)).toEqual(expect.arrayContaining(['reasoner/kl', 'reasoner/clip_ratio/low_min']))
    for (const [name, value] of Object.entries(direct)) expect(added[name], name).toBeCloseTo(value, 6)
  })

  it.each(['grpo', 'bnpo', 'dr_grpo', 'dapo', 'luspo'] as const)(
    '%s: a completion with a count equals repeated rows',
    async (loss_type) => {
      const spread = rowsOf(full, [0, 1, 1, 1, 2, 3])
      const options = { maxCompletionLength: 8, counts_B: [1, 3, 1, 1] }
      const merged = await evaluate(
        { ...full, weights: weightRows(tokenWeights(loss_type, LENGTHS, options)), counts: [[1], [3], [1], [1]] },
        { ...config, loss_type },
      )
      const weights = weightRows(tokenWeights(loss_type, [3, 2, 2, 2, 1, 3], { maxCompletionLength: 8 }))
      const repeated = await evaluate({ ...spread, weights }, { ...config, loss_type })
      expect(merged.loss).toBeCloseTo(repeated.loss, 6)
      const [metrics, expected] = [lossMetrics(merged.sums), lossMetrics(repeated.sums)]
      for (const [name, value] of Object.entries(expected)) expect(metrics[name], name).toBeCloseTo(value, 6)
    },
  )

  it('never looks at padding, not even at a NaN or an infinity', async () => {
    const clean = await evaluate(full, { ...config, off_policy_mask_threshold: 0.01, top_entropy_quantile: 0.6 })
    const spoil = (x: number) => (values: readonly number[][]) =>
      values.map((row, b) => row.map((v, t) => (MASK[b]![t] ? v : x)))
    const dirty = await evaluate(
      {
        ...full,
        logps: spoil(-Infinity)(LOGPS),
        oldLogps: spoil(NaN)(OLD),
        refLogps: spoil(Infinity)(OLD),
        samplerLogps: spoil(NaN)(full.samplerLogps!),
        entropies: spoil(NaN)(MASK),
      },
      { ...config, off_policy_mask_threshold: 0.01, top_entropy_quantile: 0.6 },
    )
    expect(dirty).toEqual(clean)
  })

  it('survives a micro-batch without any token', async () => {
    const empty = await evaluate({ ...full, mask: MASK.map((row) => row.map(() => 0)) }, config)
    expect([empty.loss, ...empty.gradient].every((x) => x === 0)).toBe(true)
    expect(Object.values(empty.sums).every(Number.isFinite)).toBe(true)
    const whole = await evaluate(full, config)
    expect(lossMetrics(addMetrics([empty.sums, whole.sums]))).toEqual(lossMetrics(whole.sums))
    expect(lossMetrics(empty.sums)['clip_ratio/low_min']).toBeNaN()
  })

  it('on policy, the ratio is 1 and the gradient is −advantage · weight', async () => {
    const onPolicy: Rows = { logps: LOGPS, mask: MASK, advantages: ADVANTAGES, weights: WEIGHTS }
    const { gradient, sums } = await evaluate(onPolicy, BASE)
    const expected = MASK.flatMap((row, b) => row.map((m) => -m * ADVANTAGES[b]![0]! * WEIGHTS[b]![0]!))
    gradient.forEach((g, i) => expect(g).toBeCloseTo(expected[i]!, 7))
    expect(lossMetrics(sums)['clip_ratio/region_mean']).toBe(0)
  })

  it('names the tensor that a setting needs', async () => {
    await expect(evaluate(ROWS, { ...BASE, beta: 0.1 })).rejects.toThrow('logprobs of the base')
    await expect(evaluate(ROWS, { ...BASE, sampler_cap: 2 })).rejects.toThrow('logprobs of the sampler')
    await expect(evaluate(ROWS, { ...BASE, top_entropy_quantile: 0.5 })).rejects.toThrow('entropies')
  })
})

describe('advantages', () => {
  const config = { scale_rewards: 'group', multi_objective_aggregation: 'sum_then_normalize' } as const
  const one = [{ name: 'match', weight: 1 }]

  it('takes groups of different sizes; a group of one teaches nothing', () => {
    const { advantages_P_G, metrics } = groupAdvantages([[[1], [0]], [[0.3]], [[0.5], [0.5], [0.5]]], one, config)
    expect(advantages_P_G[0]![0]).toBeCloseTo(0.5 / (Math.SQRT1_2 + 1e-4))
    expect(advantages_P_G.slice(1)).toEqual([[0], [0, 0, 0]])
    expect(metrics.frac_reward_zero_std).toBeCloseTo(4 / 6)
  })

  it('rejects ragged rewards, empty groups and no groups', () => {
    expect(() => groupAdvantages([[[1, 2]]], one, config)).toThrow('completion 0 of group 0 has 2 rewards')
    expect(() => groupAdvantages([[]], one, config)).toThrow('group 0 has no completion')
    expect(() => groupAdvantages([], one, config)).toThrow('no group')
  })
})

describe('metrics', () => {
  it('computes lengths of all and of terminated completions', () => {
    const completions = [
      { length: 4, finished: true },
      { length: 8, finished: false },
      { length: 2, finished: true },
    ]
    expect(completionMetrics(completions, 'questioner/')).toEqual({
      'questioner/completions/mean_length': 14 / 3,
      'questioner/completions/min_length': 2,
      'questioner/completions/max_length': 8,
      'questioner/completions/clipped_ratio': 1 - 2 / 3,
      'questioner/completions/mean_terminated_length': 3,
      'questioner/completions/min_terminated_length': 2,
      'questioner/completions/max_terminated_length': 4,
    })
    expect(completionMetrics([{ length: 8, finished: false }])['completions/mean_terminated_length']).toBe(0)
  })

  it('refuses to add what does not add', () => {
    expect(() => addMetrics([{ kl: 1 }, { kl: 2 }])).toThrow('metric kl')
  })
})
