import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { fullGrpoConfig } from '../models/losses/grpo-config.ts'
import type { GenerateRequest, Generated, Model, PolicyGradient, PolicyGroup } from '../models/model.ts'
import { f32 } from '../models/tensor.ts'
import { loadModel } from '../models/vlm/load.ts'
import type { TrainMode } from '../models/vlm/load-options.ts'
import { familyVariants, goldenImage, goldens } from './support/goldens.ts'

const picture = (name: string) => ({ key: name, read: () => readFile(goldenImage(name)) })
// Pictures of several shapes: with LLaVA-NeXT each has another number of features.
const PICTURES = ['tall37x211.png', 'square64.png', 'banner100x60.png']
const LOSS = fullGrpoConfig({
  ...{ loss_type: 'grpo', epsilon: 0.2, epsilon_high: null, delta: null, beta: 0, sampler_cap: null },
})

const requests: GenerateRequest[] = [...PICTURES.map(picture), null].flatMap((image, i) =>
  ['How many?', 'Is it red or blue?'].map((prompt, p) => ({
    ...{ key: `${i} ${p}`, image, prompt, samples: 3, maxNewTokens: 5, temperature: p === 0 ? 1 : 0.7, seed: 11 },
  })),
)

/** Every distinct completion with an advantage of its own. */
const groupsOf = (generated: readonly Generated[]): PolicyGroup[] =>
  requests.map(({ image, prompt }, i) => {
    const distinct = new Map(generated[i]!.samples.map((s) => [s.tokens.join(), s.tokens]))
    const completions = [...distinct.values()].map((tokens, c) => ({
      ...{ tokens, logprobs: null, advantage: ((i + c) % 5) - 1.7, weight: 0.1 + c / 10 },
    }))
    return { image, prompt, completions }
  })

const load = (variant: string, train: TrainMode): Promise<Model> =>
  loadModel(join(goldens, variant, 'checkpoint'), { threads: 1, train })

/** Largest difference of two gradients, relative to the largest element. */
function difference(a: PolicyGradient['gradients'], parts: readonly PolicyGradient['gradients'][]): number {
  let [worst, top] = [0, 0]
  for (const [name, { data }] of Object.entries(a))
    for (let i = 0; i < data.length; i++) {
      const sum = parts.reduce((n, part) => n + (part[name]?.data[i] ?? 0), 0)
      worst = Math.max(worst, Math.abs(sum - data[i]!))
      top = Math.max(top, Math.abs(data[i]!))
    }
  return worst / top
}

describe.each(familyVariants)('%s', (variant) => {
  let model: Model
  let generated: readonly Generated[]
  beforeAll(async () => {
    model = await load(variant, { kind: 'full' })
    generated = await model.generate(requests)
  })
  afterAll(() => model.dispose())

  it('samples with a cache what scoring the whole sequence says', async () => {
    const groups = generated.map(({ samples }, i) => ({
      ...{ image: requests[i]!.image, prompt: requests[i]!.prompt },
      completions: samples.map(({ tokens }) => ({ tokens, logprobs: null, advantage: 0, weight: 1 })),
    }))
    const scored = await model.logprobs(groups)
    const errors = scored.flatMap((own, i) =>
      own.flatMap((logprobs, s) => logprobs.map((x, t) => Math.abs(x - generated[i]!.samples[s]!.logprobs[t]!))),
    )
    expect(errors.length).toBeGreaterThan(80)
    // Image features come from another session here, and every layer amplifies their last bits.
    expect(Math.max(...errors)).toBeLessThan(5e-4)
  })

  it('samples the same alone as in a batch', async () => {
    for (const [i, request] of requests.entries()) {
      const [own] = await model.generate([request])
      expect(own!.samples.map((s) => s.tokens)).toEqual(generated[i]!.samples.map((s) => s.tokens))
      expect(own!.promptTokens).toBe(generated[i]!.promptTokens)
    }
  })

  it('sees the picture', async () => {
    const ask = requests[0]!
    const groups = PICTURES.map((name) => ({
      ...{ image: picture(name), prompt: ask.prompt },
      completions: [{ tokens: generated[0]!.samples[0]!.tokens, logprobs: null, advantage: 0, weight: 1 }],
    }))
    const [a, b, c] = (await model.logprobs(groups)).map(([logprobs]) => logprobs!.join())
    expect(new Set([a, b, c]).size).toBe(3)
  })

  it('sees with the weights that were loaded last', async () => {
    const groups = groupsOf(generated)
    const before = await model.logprobs(groups)
    const weights = model.trainable()
    const name = Object.keys(weights).find((n) => /patch_embed/.test(n))!
    const { data, dims } = weights[name]!
    model.load({
      ...weights,
      [name]: f32(
        data.map((x) => 1.5 * x),
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
  })

  it('has the policy gradient of every sequence alone, through the vision tower', async () => {
    const groups = groupsOf(generated)
    const whole = await model.policyGradient(groups, LOSS)
    const alone: PolicyGradient[] = []
    for (const group of groups)
      for (const completion of group.completions)
        alone.push(await model.policyGradient([{ ...group, completions: [completion] }], LOSS))
    const parts = alone.map((one) => one.gradients)
    expect(difference(whole.gradients, parts)).toBeLessThan(1e-4)
    const sum = alone.reduce((n, one) => n + one.loss, 0)
    expect(Math.abs(whole.loss - sum)).toBeLessThan(1e-5 * Math.max(1, Math.abs(sum)))
    for (const name of Object.keys(whole.gradients))
      if (!/k_proj\.bias$/.test(name))
        expect(
          whole.gradients[name]!.data.some((x) => x !== 0),
          name,
        ).toBe(true)
    expect(Object.keys(whole.gradients).some((name) => /patch_embed/.test(name))).toBe(true)
  })

  it('trains an adapter of the text model alone', async () => {
    const adapted = await load(variant, { kind: 'lora', r: 2, alpha: 4, targets: '_proj$', seed: 1 })
    try {
      const { gradients } = await adapted.policyGradient(groupsOf(generated), LOSS)
      const names = Object.keys(gradients)
      expect(names.length).toBe(Object.keys(adapted.trainable()).length)
      expect(names.every((name) => /^base_model\.model\.model\.(text_model|language_model)\.layers\./.test(name))).toBe(
        true,
      )
      // B is zero at first, so that only B has a gradient.
      for (const name of names) expect(gradients[name]!.data.some((x) => x !== 0)).toBe(name.includes('lora_B'))
    } finally {
      await adapted.dispose()
    }
  })
})
