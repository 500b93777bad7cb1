/**
 * Rollouts from rounded weights: how far their logprobs are from the exact ones, that only those who ask get them, and
 * that the loss makes up for the difference.
 */
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { modelActor } from '../actors/model-actor.ts'
import { encodeWeights } from '../actors/weights-codec.ts'
import { loadConfig, PACKAGE_ROOT } from '../configs/load.ts'
import type { GrpoConfig } from '../models/losses/grpo-config.ts'
import { lossMetrics, roleLossMetrics } from '../models/losses/metrics.ts'
import type { Generated, ImageSource, PolicyGradient } from '../models/model.ts'
import type { Precision } from '../models/layers/precision.ts'
import type { LoadOptions, TrainMode } from '../models/vlm/load-options.ts'
import { openModel } from '../models/vlm/open.ts'
import type { VlmModel } from '../models/vlm/model.ts'
import { lossOf } from '../runners/evolve/assemble-options.ts'
import { decideRollouts } from '../runners/evolve/rollouts.ts'
import { World } from './support/actors-world.ts'

const TINY = join(PACKAGE_ROOT, 'models', 'tiny')
const GOLDENS = join(PACKAGE_ROOT, 'test', 'goldens')
const lora = { kind: 'lora', r: 4, alpha: 8, seed: 1, targets: String.raw`\.(q_proj|v_proj|down_proj)$` } as const
const image: ImageSource = { key: 'photo', read: () => readFile(join(GOLDENS, 'images', 'photo640x480.jpg')) }
const ROUNDED = ['int8', 'q4'] as const satisfies readonly Precision[]

async function withModel<T>(dir: string, options: LoadOptions, job: (model: VlmModel) => Promise<T>): Promise<T> {
  const model = await openModel(dir, { threads: 1, train: lora, ...options })
  return job(model).finally(() => model.dispose())
}

const ask = { key: 'k', image, prompt: 'ask', maxNewTokens: 12, temperature: 1, seed: 3 }

const sample = async (model: VlmModel, samples: number, rollout: boolean): Promise<Generated['samples']> =>
  (await model.generate([{ ...ask, samples, rollout }]))[0]!.samples

/** Of every token: the policy's logprob, and that which its sampler reported. */
async function differences(model: VlmModel, samples: Generated['samples']): Promise<number[]> {
  const completions = samples.map(({ tokens }) => ({ tokens, logprobs: null, advantage: 0, weight: 0 }))
  const [exact] = await model.logprobs([{ image, prompt: ask.prompt, completions }])
  return samples.flatMap(({ logprobs }, s) => logprobs.map((l, t) => exact![s]![t]! - l))
}

const meanSize = (values: readonly number[]) => values.reduce((n, v) => n + Math.abs(v), 0) / values.length

describe('samples from rounded weights', () => {
  // Logits of random weights are large and so are their errors; those of a trained model are what counts.
  it.each([
    ['models/tiny', TINY, { int8: 0.02, q4: 0.15 }],
    ['smolvlm/tiny64', join(GOLDENS, 'smolvlm/tiny64/checkpoint'), { int8: 0.3, q4: 2 }],
    ['smolvlm/split', join(GOLDENS, 'smolvlm/split/checkpoint'), { int8: 0.3, q4: 2 }],
    ['qwen2_5_vl/small', join(GOLDENS, 'qwen2_5_vl/small/checkpoint'), { int8: 0.3, q4: 2 }],
  ])('%s: logprobs are within a bound of the exact ones, and exact where nobody asked', async (_, dir, bounds) => {
    for (const rollouts of ROUNDED)
      await withModel(dir, { rollouts }, async (model) => {
        const [rounded, exact] = [await sample(model, 16, true), await sample(model, 16, false)]
        const error = meanSize(await differences(model, rounded))
        expect(error, rollouts).toBeGreaterThan(1e-4)
        expect(error, rollouts).toBeLessThan(bounds[rollouts])
        expect(Math.max(...(await differences(model, exact)).map(Math.abs)), rollouts).toBeLessThan(1e-3)
      })
  })

  it.each(ROUNDED)('%s: hardly depend on what else is sampled', async (rollouts) => {
    await withModel(TINY, { rollouts }, async (model) => {
      const [few, many] = [await sample(model, 8, true), await sample(model, 64, true)]
      // Layers are independent bit for bit (precision.test.ts). Attention is as in float32: where its last bits differ, a
      // rounding may flip, now and then even a token.
      const same = few.filter((s, i) => s.tokens.join() === many[i]!.tokens.join())
      expect(same.length).toBeGreaterThanOrEqual(7)
    })
  })

  it('need weights that stay: refused where all are trained, not where only the vision tower is', async () => {
    const full = { kind: 'full' } as const
    await expect(openModel(TINY, { rollouts: 'int8', train: full })).rejects.toThrow(
      /^rollouts in int8 need a frozen text model.* set model.rollouts=fp32, or model.train to lora or vision$/,
    )
    const train: TrainMode = { kind: 'full', part: 'vision' }
    await withModel(TINY, { rollouts: 'int8', train }, async (model) => {
      expect(meanSize(await differences(model, await sample(model, 8, true)))).toBeGreaterThan(1e-4)
    })
  })
})

describe('a model actor', () => {
  it('rounds for those who ask for samples to learn from, and for nobody else', async () => {
    const world = new World({ ackWaitMs: 5_000 })
    await withModel(TINY, { rollouts: 'q4' }, async (model) => {
      const bus = world.net.connect('test.1')
      const ports = world.ports('test', bus)
      const blob = await bus.putBlob(encodeWeights(model.trainable()))
      const head = { version: 0, parent: null, adapter: blob, optimizer: blob, epoch: 1, consumed: [] }
      await bus.moveHead(head, null)
      await bus.append('version', 'v0', { weights: 0, ...head })
      const actor = modelActor(world.ports('model', world.net.connect('model.1')), { model, windowMs: 5 })
      const task = { prompt: 'ask', samples: 4, maxNewTokens: 8, temperature: 1, seed: 3 }
      const where = { image: await bus.putBlob(await image.read()), minWeights: 0, cohort: null, weights: null }
      const reply = async (id: string, rollout?: boolean) => {
        const request = { ...task, ...where, ...(rollout !== undefined && { rollout }) }
        const options = { signal: AbortSignal.timeout(20_000), again: false }
        return (await ports.request('model.generate', id, request, options)).message.data.completions
      }
      // As the Evaluator, `serve --run` and actors of users ask, and as Questioner and Reasoner do.
      const [exact, rounded] = [await reply('exact'), await reply('rounded', true)]
      expect(meanSize(await differences(model, exact))).toBeLessThan(1e-5)
      expect(meanSize(await differences(model, rounded))).toBeGreaterThan(1e-3)
      await actor.stop()
    })
    await world.stop()
  })
})

describe('the precision of a run', () => {
  const config = (...sets: string[]) => loadConfig({ preset: 'tiny', sets })

  it('is decided by measurement where it is auto, and said', async () => {
    const notes: string[] = []
    const decide = (...sets: string[]) => decideRollouts(config(...sets), (note) => notes.push(note))
    expect((await decide('model.train=lora', 'model.rollouts=q4')).model.rollouts).toBe('q4')
    expect(notes).toEqual([])
    expect((await decide('model.rollouts=auto')).model.rollouts).toBe('fp32')
    expect(notes).toEqual(['rollouts in fp32: every weight is trained (model.rollouts)'])
    const chosen = (await decide('model.train=lora', 'model.rollouts=auto')).model.rollouts
    expect(['fp32', 'int8']).toContain(chosen)
    expect(notes[1]).toMatch(
      new RegExp(`^rollouts in ${chosen}: the layers of a decoding step of 128 samples take [\\d.]+ ms in 8 bits, `),
    )
  })

  it('decides the correction of the loss, unless the settings do', () => {
    const correction = (...sets: string[]) => {
      const { sampler_correction, sampler_cap } = lossOf(config(...sets))
      return [sampler_correction, sampler_cap]
    }
    expect(correction()).toEqual([null, null])
    expect(correction('model.rollouts=int8')).toEqual(['token_truncate', 2])
    expect(correction('model.rollouts=q4', 'loss.sampler_cap=5')).toEqual(['token_truncate', 5])
    expect(correction('model.rollouts=int8', 'loss.sampler_correction=null')).toEqual([null, null])
    expect(correction('model.rollouts=int8', 'loss.sampler_correction=sequence_mask')).toEqual(['sequence_mask', null])
  })
})

/** Advantage of a token: ±1, without a pattern. */
const advantage = (token: number): number => (Math.imul(token + 7, 0x9e3779b1) >>> 31 === 0 ? -1 : 1)
const LOSS = { loss_type: 'grpo', epsilon: 0.2, epsilon_high: null, delta: null, beta: 0, sampler_cap: null } as const
const CORRECTED = { ...LOSS, sampler_correction: 'token_truncate' } as const
const [SAMPLES, BATCHES] = [1024, 12]

/** The gradient of weighted tokens, as one vector. */
async function gradient(
  model: VlmModel,
  tokens: readonly { token: number; weight: number; logprob: number | null }[],
  loss: GrpoConfig,
): Promise<{ vector: Float64Array; metrics: PolicyGradient['metrics'] }> {
  const completions = tokens.map(({ token, weight, logprob }) => ({
    tokens: [token],
    logprobs: logprob === null ? null : [logprob],
    advantage: advantage(token),
    weight,
    count: Math.round(weight * SAMPLES),
  }))
  const { gradients, metrics } = await model.policyGradient([{ image: null, prompt: 'ask', completions }], loss)
  const names = Object.keys(gradients).toSorted()
  return { vector: Float64Array.from(names.flatMap((name) => [...gradients[name]!.data])), metrics }
}

/** E over the policy of advantage · ∇ log π, by enumeration of the vocabulary. */
async function exactGradient(model: VlmModel): Promise<Float64Array> {
  const { text, banned } = model.network.context.architecture
  const tokens = [...Array(text.vocab).keys()].filter((token) => !banned.includes(token))
  const completions = tokens.map((token) => ({ tokens: [token], logprobs: null, advantage: 0, weight: 0 }))
  const [logprobs] = await model.logprobs([{ image: null, prompt: 'ask', completions }])
  const weighted = tokens.map((token, i) => ({ token, weight: Math.exp(logprobs![i]![0]!), logprob: null }))
  return (await gradient(model, weighted, LOSS)).vector
}

async function sampleTokens(model: VlmModel, seed: number) {
  const request = { ...ask, image: null, seed, samples: SAMPLES, maxNewTokens: 1, rollout: true }
  const [generated] = await model.generate([request])
  const counts = new Map<number, { count: number; logprob: number }>()
  for (const { tokens, logprobs } of generated!.samples) {
    const { count } = counts.get(tokens[0]!) ?? { count: 0 }
    counts.set(tokens[0]!, { count: count + 1, logprob: logprobs[0]! })
  }
  return [...counts].map(([token, { count, logprob }]) => ({ token, weight: count / SAMPLES, logprob }))
}

const dot = (a: Float64Array, b: Float64Array): number => a.reduce((n, x, i) => n + x * b[i]!, 0)

interface Estimate {
  /** Component along the exact gradient, of which 1 is right, and its standard error. */
  readonly along: number
  readonly standardError: number
  /** Squared distance of the mean from the exact gradient, over what noise alone would make of it. */
  readonly distance: number
}

function estimate(vectors: readonly Float64Array[], exact: Float64Array): Estimate {
  const n = vectors.length
  const parts = vectors.map((v) => dot(v, exact) / dot(exact, exact))
  const along = parts.reduce((a, b) => a + b) / n
  const variance = parts.reduce((sum, p) => sum + (p - along) ** 2, 0) / (n - 1)
  const mean = exact.map((_, i) => vectors.reduce((sum, v) => sum + v[i]!, 0) / n)
  const off = (v: Float64Array, from: Float64Array) => v.reduce((sum, x, i) => sum + (x - from[i]!) ** 2, 0)
  const noise = vectors.reduce((sum, v) => sum + off(v, mean), 0) / (n - 1) / n
  return { along, standardError: Math.sqrt(variance / n), distance: off(mean, exact) / noise }
}

/** Estimates of the gradient from many rounded samples: uncorrected, capped at 2, and without a cap. */
const estimates = (rollouts: Precision) =>
  withModel(join(GOLDENS, 'smolvlm/tiny64/checkpoint'), { rollouts }, async (model) => {
    const exact = await exactGradient(model)
    const vectors: Record<'raw' | 'capped' | 'free', Float64Array[]> = { raw: [], capped: [], free: [] }
    let ratios = 0
    for (let seed = 0; seed < BATCHES; seed++) {
      const tokens = await sampleTokens(model, seed)
      const unknown = tokens.map((t) => ({ ...t, logprob: null }))
      vectors.raw.push((await gradient(model, unknown, LOSS)).vector)
      vectors.capped.push((await gradient(model, tokens, { ...CORRECTED, sampler_cap: 2 })).vector)
      const free = await gradient(model, tokens, CORRECTED)
      vectors.free.push(free.vector)
      ratios += free.metrics.sampler_ratio_sum! / free.metrics.sampler_ratio_count! / BATCHES
    }
    const of = (list: readonly Float64Array[]) => estimate(list, exact)
    return { raw: of(vectors.raw), capped: of(vectors.capped), free: of(vectors.free), ratios }
  })

const errors = ({ along, standardError }: Estimate): number => Math.abs(along - 1) / standardError

/** With random weights the rounded model is another one: on average 0.1 nats a token in 8 bits, more than 1 in 4. */
describe('the gradient from rounded samples', () => {
  it('comes with figures for each role', async () => {
    await withModel(TINY, { rollouts: 'q4' }, async (model) => {
      const [questions, answers] = [await sample(model, 6, true), await sample(model, 4, true)]
      const group = (samples: Generated['samples'], role: string, count: number) => ({
        image,
        prompt: ask.prompt,
        role,
        completions: samples.map(({ tokens, logprobs }) => ({ tokens, logprobs, advantage: 1, weight: 1, count })),
      })
      const groups = [group(questions, 'questioner', 1), group(answers.slice(2), 'reasoner', 3)]
      const config = { ...CORRECTED, sampler_cap: 2 }
      const both = (await model.policyGradient(groups, config)).metrics
      for (const [i, role] of (['questioner', 'reasoner'] as const).entries()) {
        const alone = lossMetrics((await model.policyGradient([groups[i]!], config)).metrics, `${role}/`)
        const figures = Object.entries(roleLossMetrics(both, role))
        expect(figures.map(([name]) => name)).toContain(`${role}/sampling/importance_sampling_ratio/min`)
        for (const [name, value] of figures) expect(value, name).toBeCloseTo(alone[name]!, 4)
      }
      expect(both['questioner/sampler_difference_max']).not.toBeCloseTo(both['reasoner/sampler_difference_max']!, 4)
    })
  })

  it('int8: is unbiased with the default correction, and biased without one', async () => {
    const { raw, capped, ratios } = await estimates('int8')
    expect(errors(capped)).toBeLessThan(3)
    expect(capped.distance).toBeLessThan(2)
    expect(errors(raw)).toBeGreaterThan(6)
    expect(raw.distance).toBeGreaterThan(10)
    // E of policy / sampler under the sampler is 1 only if the sampler tells the logprobs that it sampled from.
    expect(Math.abs(ratios - 1)).toBeLessThan(0.01)
  })

  it('q4, as coarse as it can be: the correction is exact without a cap, whose price is bias', async () => {
    const { raw, capped, free } = await estimates('q4')
    expect(errors(free)).toBeLessThan(3)
    expect(free.distance).toBeLessThan(2)
    expect(errors(raw)).toBeGreaterThan(20)
    expect(errors(capped)).toBeGreaterThan(20)
    expect(capped.distance).toBeLessThan(raw.distance)
    expect(capped.standardError).toBeLessThan(free.standardError)
  })
})
