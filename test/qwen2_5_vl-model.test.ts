/** Qwen2.5-VL behind the face that actors see. */
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { GrpoConfig } from '../models/losses/grpo-config.ts'
import type { GenerateRequest, ImageSource, Model, PolicyGroup } from '../models/model.ts'
import { f32, type Weights } from '../models/tensor.ts'
import { openModel } from '../models/vlm/open.ts'
import { addWeights } from '../models/vlm/weights.ts'
import { goldenImage, qwenSmall } from './support/goldens.ts'

const picture = (name: string): ImageSource => ({ key: name, read: () => readFile(goldenImage(name)) })
/** Of 4, 8, 8 and 6 image tokens. */
const PICTURES = ['square64.png', 'banner100x60.png', 'tall37x211.png', 'noise48x40.png'].map(picture)

const request = (key: string, image: ImageSource | null, prompt: string): GenerateRequest => ({
  ...{ key, image, prompt, samples: 3, maxNewTokens: 6, temperature: 1, seed: 2 },
})
const requests = [
  ...PICTURES.map((image, i) => request(`p${i}`, image, 'What is it?')),
  request('q', PICTURES[1]!, 'And what else?'),
  request('t', null, 'Is a square a rectangle?'),
]
const LOSS: GrpoConfig = {
  loss_type: 'grpo',
  epsilon: 0.2,
  epsilon_high: null,
  delta: null,
  beta: 0,
  sampler_cap: null,
}

/** What was sampled, with made-up advantages. */
async function groupsOf(model: Model): Promise<{ groups: PolicyGroup[]; sampled: (readonly number[])[][] }> {
  const generated = await model.generate(requests)
  const groups = requests.map(({ image, prompt }, i) => ({
    ...{ image, prompt },
    completions: generated[i]!.samples.map(({ tokens, logprobs }, g) => ({
      ...{ tokens, logprobs, advantage: g - 0.8, weight: 0.1 },
    })),
  }))
  return { groups, sampled: generated.map(({ samples }) => samples.map((s) => s.logprobs)) }
}

describe.each(['full', 'lora'] as const)('%s training', (kind) => {
  let model: Model
  beforeAll(async () => {
    const train =
      kind === 'full' ? ({ kind } as const) : ({ kind, r: 4, alpha: 8, targets: '_proj$', seed: 1 } as const)
    model = await openModel(join(qwenSmall, 'checkpoint'), { device: 'cpu', threads: 1, train })
  })
  afterAll(() => model.dispose())

  it('trains what it says', () => {
    const names = Object.keys(model.trainable())
    if (kind === 'full') expect(names).toContain('model.visual.patch_embed.proj.weight')
    else expect(names.every((n) => n.startsWith('base_model.model.model.language_model.layers.'))).toBe(true)
    expect(names.length).toBeGreaterThan(20)
  })

  it('scores samples about pictures of several sizes as it sampled them', async () => {
    const { groups, sampled } = await groupsOf(model)
    const scored = await model.logprobs(groups)
    const errors = sampled.flatMap((own, i) => own.flatMap((l, g) => l.map((x, t) => Math.abs(x - scored[i]![g]![t]!))))
    expect(errors.length).toBeGreaterThan(50)
    expect(Math.max(...errors)).toBeLessThan(1e-4)
  })

  it('has the gradient of all groups as the sum of those of each', async () => {
    const { groups } = await groupsOf(model)
    const together = await model.policyGradient(groups, LOSS)
    const parts: Weights[] = []
    for (const group of groups) parts.push((await model.policyGradient([group], LOSS)).gradients)
    const largest = (data: Float32Array) => data.reduce((most, x) => Math.max(most, Math.abs(x)), 0)
    // Text alone has no gradient of the vision tower.
    const all = parts.map((p) => ({ ...zeros(together.gradients), ...p }))
    const sums = Object.entries(addWeights(all))
    const top = Math.max(...sums.map(([, { data }]) => largest(data)))
    expect(top).toBeGreaterThan(1e-3)
    for (const [name, { data }] of sums) {
      const error = largest(data.map((x, i) => x - together.gradients[name]!.data[i]!))
      expect(error / Math.max(largest(data), 1e-3 * top), name).toBeLessThan(1e-3)
    }
  })
})

it('sees with the weights that were loaded last', async () => {
  const model = await openModel(join(qwenSmall, 'checkpoint'), { device: 'cpu', threads: 1, train: { kind: 'full' } })
  try {
    const { groups } = await groupsOf(model)
    const before = await model.logprobs(groups)
    const weights = model.trainable()
    const name = 'model.visual.merger.mlp.2.bias'
    const { data, dims } = weights[name]!
    model.load({
      ...weights,
      [name]: f32(
        data.map((x) => x + 1),
        dims,
      ),
    })
    const changed = await model.logprobs(groups)
    model.load(weights)
    const after = await model.logprobs(groups)
    groups.forEach(({ image }, i) => {
      if (image) expect(changed[i]).not.toEqual(before[i])
      else expect(changed[i]).toEqual(before[i])
      expect(after[i]).toEqual(before[i])
    })
  } finally {
    await model.dispose()
  }
})

const zeros = (weights: Weights): Weights =>
  Object.fromEntries(
    Object.entries(weights).map(([name, { data, dims }]) => [name, f32(new Float32Array(data.length), dims)]),
  )
