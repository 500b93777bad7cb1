import { describe, expect, it } from 'vitest'
import { z } from 'zod'
import { readJson } from '../models/io/json-file.ts'
import { readSafetensors } from '../models/io/safetensors.ts'
import { adamWFromTensors, adamWToTensors, initAdamW, stepAdamW, type AdamWOptions } from '../models/optim/adamw.ts'
import { clipScale, globalNorm, NonFiniteGradientError } from '../models/optim/clip.ts'
import { learningRate, type Schedule } from '../models/optim/schedule.ts'
import { f32, type Weights } from '../models/tensor.ts'

const OPTIONS: AdamWOptions = { lr: 0.01, betas: [0.9, 0.95], eps: 1e-8, weightDecay: 0 }
const weights = (...data: number[]): Weights => ({ w: f32(data, [data.length]) })

const goldenSchema = z.object({
  optimizer: z.object({
    lr: z.number(),
    betas: z.tuple([z.number(), z.number()]),
    adam_eps: z.number(),
    weight_decay: z.number(),
    max_grad_norm: z.number(),
    grad_norm_before_clip_per_step: z.array(z.number()),
  }),
})

describe('AdamW', () => {
  it.each(['tiny64', 'split', 'idefics3'])('%s: norm, clip and first step as in torch', async (variant) => {
    const dir = `test/goldens/smolvlm/${variant}/train`
    const { optimizer } = await readJson(`${dir}/grpo.json`, goldenSchema)
    const adapter = (await readSafetensors(`${dir}/adapter/adapter_model.safetensors`)) as Weights
    const gradients = (await readSafetensors(`${dir}/grpo_grads.safetensors`)) as Weights
    const expected = await readSafetensors(`${dir}/adapter_step1.safetensors`)

    const norm = globalNorm(gradients)
    expect(norm / optimizer.grad_norm_before_clip_per_step[0]!).toBeCloseTo(1, 5)
    const { state, weights: updated } = stepAdamW(initAdamW(adapter), adapter, gradients, {
      lr: optimizer.lr,
      betas: optimizer.betas,
      eps: optimizer.adam_eps,
      weightDecay: optimizer.weight_decay,
      gradientScale: clipScale(norm, optimizer.max_grad_norm),
    })
    expect(state.step).toBe(1)
    let largest = 0
    for (const [name, { data }] of Object.entries(expected)) {
      data.forEach((x, i) => (largest = Math.max(largest, Math.abs(Number(x) - updated[name]!.data[i]!))))
    }
    expect(Object.keys(updated).toSorted()).toEqual(Object.keys(expected).toSorted())
    expect(largest).toBeLessThan(1e-7)
  })

  it('moves by lr · sign under a constant gradient, at every step', () => {
    let state = initAdamW(weights(1, 2, 3))
    let current = weights(1, 2, 3)
    for (let i = 0; i < 20; i++) ({ state, weights: current } = stepAdamW(state, current, weights(5, -0.1, 0), OPTIONS))
    const expected = [1 - 0.2, 2 + 0.2, 3]
    current.w!.data.forEach((w, i) => expect(w).toBeCloseTo(expected[i]!, 5))
  })

  it('decays weights apart from the gradient', () => {
    const start = weights(1, -2)
    const { weights: after } = stepAdamW(initAdamW(start), start, weights(0, 0), { ...OPTIONS, weightDecay: 0.5 })
    expect(Array.from(after.w!.data)).toEqual([Math.fround(0.995), Math.fround(-1.99)])
  })

  it('changes nothing that it was given', () => {
    const start = weights(1, 2)
    const state = initAdamW(start)
    const next = stepAdamW(state, start, weights(1, 1), OPTIONS)
    expect(start).toEqual(weights(1, 2))
    expect(state).toEqual(initAdamW(start))
    expect(next.weights.w!.data[0]).not.toBe(1)
  })

  it('goes on from a checkpoint bit for bit', () => {
    const start = weights(1, 2)
    const one = stepAdamW(initAdamW(start), start, weights(0.3, -0.7), OPTIONS)
    const tensors = adamWToTensors(one.state)
    expect(Object.keys(tensors)).toEqual(['moments/step', 'moments/first/w', 'moments/second/w'])
    const restored = adamWFromTensors({ ...tensors, 'lora/other': f32([1], [1]) })
    expect(restored).toEqual(one.state)
    const go = (state: typeof restored) => stepAdamW(state, one.weights, weights(0.1, 0.1), OPTIONS)
    expect(go(restored)).toEqual(go(one.state))
    expect(() => adamWFromTensors({})).toThrow('moments/step')
  })

  it('names the parameter that does not fit', () => {
    const start = weights(1, 2)
    const state = initAdamW(start)
    expect(() => stepAdamW(state, start, {}, OPTIONS)).toThrow('no gradient for parameter w')
    expect(() => stepAdamW(state, start, weights(1), OPTIONS)).toThrow('gradient of w has 1 values, expected 2')
    expect(() => stepAdamW(state, start, { ...start, x: f32([1], [1]) }, OPTIONS)).toThrow('gradient for x')
    expect(() => stepAdamW(initAdamW({}), start, start, OPTIONS)).toThrow('no moment for parameter w')
  })
})

describe('clipping', () => {
  it('takes the norm over all tensors and scales down only', () => {
    expect(globalNorm({ a: f32([3, 0, 0, 0, 0], [5]), b: f32([4], [1]) })).toBe(5)
    expect(clipScale(5, 1)).toBeCloseTo(0.2, 6)
    expect(clipScale(0.5, 1)).toBe(1)
    expect(clipScale(5, null)).toBe(1)
  })

  it('refuses a gradient that is not finite', () => {
    expect(() => clipScale(globalNorm(weights(1, NaN)), null)).toThrow(NonFiniteGradientError)
    expect(() => clipScale(globalNorm(weights(1, Infinity)), 1)).toThrow('norm is Infinity')
  })
})

describe('learning rate', () => {
  const rates = (schedule: Schedule, ...steps: number[]) =>
    steps.map((s) => Number(learningRate(schedule, s).toFixed(6)))
  const base = { peak: 1, warmup: 4, total: 12 }

  it('warms up, then follows the kind', () => {
    const steps = [0, 1, 3, 4, 8, 11, 12, 99]
    expect(rates({ ...base, kind: 'constant' }, ...steps)).toEqual([0.25, 0.5, 1, 1, 1, 1, 1, 1])
    expect(rates({ ...base, kind: 'linear' }, ...steps)).toEqual([0.25, 0.5, 1, 1, 0.5, 0.125, 0, 0])
    expect(rates({ ...base, kind: 'cosine' }, ...steps)).toEqual([0.25, 0.5, 1, 1, 0.5, 0.03806, 0, 0])
  })

  it('needs no warm-up', () => expect(rates({ ...base, kind: 'linear', warmup: 0 }, 0, 6)).toEqual([1, 0.5]))
})
