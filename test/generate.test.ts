import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import {
  generate,
  type GenerationModel,
  type ImageRequests,
  type PromptRequest,
  type SampledTokens,
} from '../models/generate/generate.ts'
import { randomKey, uniform } from '../models/generate/random.ts'
import { packTrees } from '../models/tree/pack.ts'
import { Network } from '../models/vlm/network.ts'
import { goldenJson } from './support/goldens.ts'
import { openTiny, TINY, type TinyVariant } from './support/tiny-variant.ts'

describe.each(TINY)('%s', (name) => {
  let tiny: TinyVariant
  /** No token ends a sample. */
  let endless: GenerationModel
  beforeAll(async () => {
    tiny = await openTiny(name)
    endless = { ...tiny.network.generation(), endTokens: new Set() }
  })
  afterAll(() => tiny.dispose())

  const request = (key: string, tokens: readonly number[], more: Partial<PromptRequest> = {}): PromptRequest => ({
    ...{ key, tokens, samples: 4, maxNewTokens: 8, temperature: 1, seed: 3 },
    ...more,
  })
  const about = (picture: number | null, ...prompts: PromptRequest[]): ImageRequests => ({
    ...tiny.root(picture),
    prompts,
  })
  const sample = (images: readonly ImageRequests[], model = endless): Promise<SampledTokens[][][]> =>
    generate(model, images, tiny.features)
  const alone = async (image: ImageRequests, model = endless): Promise<SampledTokens[]> =>
    (await sample([image], model))[0]![0]!
  const tokensOf = (samples: readonly SampledTokens[]) => samples.map((s) => s.tokens)

  const mixed = (): ImageRequests[] => [
    about(0, request('a', [10, 20]), request('b', [30], { samples: 7, maxNewTokens: 3 })),
    about(null, request('c', [40, 50, 60], { temperature: 0.7 })),
    about(
      1,
      request('d', [70]),
      request('e', [], { samples: 1, maxNewTokens: 12 }),
      request('f', [10, 20], { temperature: 0 }),
    ),
  ]

  describe('cached decoding', () => {
    it('gives the logprobs that scoring the whole sequence gives', async () => {
      const images = mixed()
      const results = await sample(images)
      const roots = images.map(({ prompts, ...root }, i) => ({
        ...root,
        prompts: prompts.map(({ tokens }, p) => ({ tokens, completions: tokensOf(results[i]![p]!) })),
      }))
      const image = { kind: 'given', features: tiny.features } as const
      const { logprobs } = await tiny.network.score(packTrees(roots, tiny.architecture.imageTokenId), image)
      const sampled = results.flat(2).map((s) => s.logprobs)
      expect(logprobs.map((l) => l.length)).toEqual(sampled.map((l) => l.length))
      const errors = logprobs.flatMap((own, i) => own.map((x, t) => Math.abs(x - sampled[i]![t]!)))
      expect(Math.max(...errors)).toBeLessThan(1e-4)
    })

    if (name === TINY[0])
      it('goes on behind a prefix that brings three positions a token', async () => {
        const { context, weights } = tiny.network
        const text = { ...context.architecture.text, mropeSection: [2, 3, 3] as const }
        const network = new Network(
          { ...context, architecture: { ...context.architecture, text } },
          weights,
          tiny.options,
        )
        try {
          // As Qwen2-VL numbers a picture: time stands still, rows and columns advance, text goes on behind the largest.
          const placed = mixed().map((image, i) => {
            const { length } = image.prefix
            const values = Int32Array.from({ length: 3 * length }, (_, at) => {
              const [axis, token] = [Math.floor(at / length), at % length]
              return i === 1 || axis === 0 ? Math.min(token, 2) : 2 + ((token * (axis + 1)) % 4)
            })
            return { ...image, positions: { axes: 3 as const, values, next: Math.max(...values) + 1 } }
          })
          const results = await sample(placed, { ...network.generation(), endTokens: new Set() })
          const roots = placed.map(({ prompts, ...root }, i) => ({
            ...root,
            prompts: prompts.map(({ tokens }, p) => ({ tokens, completions: tokensOf(results[i]![p]!) })),
          }))
          const image = { kind: 'given', features: tiny.features } as const
          const { logprobs } = await network.score(packTrees(roots, tiny.architecture.imageTokenId), image)
          const sampled = results.flat(2).map((s) => s.logprobs)
          const errors = logprobs.flatMap((own, i) => own.map((x, t) => Math.abs(x - sampled[i]![t]!)))
          expect(Math.max(...errors)).toBeLessThan(1e-4)
          const depths = placed.map((image) => ({
            ...image,
            positions: {
              axes: 3 as const,
              values: Int32Array.from([0, 1, 2].flatMap(() => [...image.prefix.keys()])),
              next: image.prefix.length,
            },
          }))
          // Positions matter; and equal to the depths they are what a model without M-RoPE has.
          const plain = (await sample(mixed())).map((own) => own.map(tokensOf))
          expect(results.map((own) => own.map(tokensOf))).not.toEqual(plain)
          const same = await sample(depths, { ...network.generation(), endTokens: new Set() })
          expect(same.map((own) => own.map(tokensOf))).toEqual(plain)
        } finally {
          await network.dispose()
        }
      })

    it('takes as many tokens as each prompt asks for', async () => {
      const images = mixed()
      const results = await sample(images)
      images.forEach(({ prompts }, i) =>
        prompts.forEach(({ samples, maxNewTokens }, p) => {
          const own = results[i]![p]!
          expect(own).toHaveLength(samples)
          for (const { tokens, finished } of own) {
            expect(tokens).toHaveLength(maxNewTokens)
            expect(finished).toBe(false)
          }
        }),
      )
    })

    it('computes every distinct beginning once', async () => {
      const steps: number[] = []
      const counted: GenerationModel = {
        ...endless,
        extend: (cache, feeds) => {
          steps.push(feeds['rows']!.dims[0]!)
          return endless.extend(cache, feeds)
        },
      }
      // A low temperature makes samples agree for a while.
      const cool = { temperature: 0.3, samples: 12, maxNewTokens: 6 }
      const images = [about(0, request('a', [10], cool), request('b', [20], cool)), about(1, request('c', [30], cool))]
      const prompts = (await sample(images, counted)).flat()
      const distinct = (length: number) =>
        prompts.reduce((n, own) => n + new Set(own.map(({ tokens }) => tokens.slice(0, length).join())).size, 0)
      expect(steps).toEqual([prompts.length, ...[1, 2, 3, 4, 5].map(distinct)])
      expect(steps.at(-1)).toBeLessThan(36)
      expect(steps.at(-1)).toBeGreaterThan(3)
    })
  })

  describe('a sample', () => {
    it('is the inverse of the cumulative distribution at the number of (seed, key, sample, token)', async () => {
      const ask = request('a', [10, 20], { samples: 12, temperature: 0.6, maxNewTokens: 5, seed: 9 })
      const samples = tokensOf(await alone(about(2, ask)))
      const packed = packTrees(
        [{ ...about(2), prompts: [{ tokens: ask.tokens, completions: samples }] }],
        tiny.architecture.imageTokenId,
      )
      const logits = await tiny.logits.run(packed, tiny.features, tiny.network.weights, packed.predictors)
      const { vocab } = tiny.architecture.text
      samples.forEach((tokens, g) =>
        tokens.forEach((token, t) => {
          const at = packed.spans[g]!.start + t
          const weights = [...logits.subarray(at * vocab, (at + 1) * vocab)].map((z) => Math.exp(z / ask.temperature))
          const target = uniform(randomKey(ask.seed, ask.key), g, t) * weights.reduce((a, b) => a + b, 0)
          let cumulative = 0
          expect(weights.findIndex((w) => (cumulative += w) > target)).toBe(token)
        }),
      )
    })

    it('does not depend on the batch that it is in', async () => {
      const images = mixed()
      const together = await sample(images)
      for (const [i, image] of images.entries())
        for (const [p, prompt] of image.prompts.entries()) {
          const single = await alone({ ...image, prompts: [prompt] })
          expect(tokensOf(single)).toEqual(tokensOf(together[i]![p]!))
        }
      const reversed = await sample([...images].reverse())
      expect(reversed.map((own) => own.map(tokensOf))).toEqual([...together].reverse().map((own) => own.map(tokensOf)))
    })

    it('does not depend on how many there are', async () => {
      const many = await alone(about(0, request('a', [10, 20], { samples: 20 })))
      const few = await alone(about(0, request('a', [10, 20], { samples: 5, maxNewTokens: 4 })))
      expect(tokensOf(few)).toEqual(tokensOf(many.slice(0, 5)).map((tokens) => tokens.slice(0, 4)))
    })

    it('depends on seed, key and its number', async () => {
      const own = tokensOf(await alone(about(0, request('a', [10]))))
      expect(tokensOf(await alone(about(0, request('a', [10]))))).toEqual(own)
      expect(tokensOf(await alone(about(0, request('a', [10], { seed: 4 }))))).not.toEqual(own)
      expect(tokensOf(await alone(about(0, request('b', [10]))))).not.toEqual(own)
      expect(new Set(own.map(String)).size).toBe(4)
    })

    it('ends with the end token, and is the same up to there', async () => {
      const ask = about(0, request('a', [10], { samples: 64, maxNewTokens: 10 }))
      const whole = await alone(ask)
      const counts = new Map<number, number>()
      for (const token of whole.flatMap((s) => s.tokens)) counts.set(token, (counts.get(token) ?? 0) + 1)
      const end = [...counts].toSorted(([, a], [, b]) => b - a)[0]![0]
      const cut = await alone(ask, { ...endless, endTokens: new Set([end]) })
      whole.forEach(({ tokens }, i) => {
        const at = tokens.indexOf(end)
        expect(cut[i]!.tokens).toEqual(at < 0 ? tokens : tokens.slice(0, at + 1))
        expect(cut[i]!.finished).toBe(at >= 0)
        expect(cut[i]!.logprobs).toHaveLength(cut[i]!.tokens.length)
      })
      expect(cut.some((s) => s.finished)).toBe(true)
      expect(cut.some((s) => !s.finished)).toBe(true)
    })
  })

  it('greedy decoding is that of the reference, for every sample and seed', async () => {
    const golden = goldenJson<{ input_ids: number[]; greedy: { ids: number[] } }>(name, 'cases/single.json')
    const { prefix } = tiny.root(0)
    const tokens = golden.input_ids.slice(prefix.length)
    expect(golden.input_ids.slice(0, prefix.length)).toEqual(prefix)
    const more = { temperature: 0, maxNewTokens: golden.greedy.ids.length, samples: 3 }
    for (const seed of [1, 2]) {
      const own = await alone(about(0, request('x', tokens, { ...more, seed })))
      expect(tokensOf(own)).toEqual([golden.greedy.ids, golden.greedy.ids, golden.greedy.ids])
    }
  })

  describe('the distribution', () => {
    const PROMPT = [10, 20]
    const SAMPLES = 4096

    /** Probabilities of the first token at a temperature, from the whole logits. */
    async function probabilities(temperature: number, banned: readonly number[] = []): Promise<number[]> {
      const root = tiny.root(0, PROMPT)
      const packed = packTrees([{ ...root, prompts: [] }], tiny.architecture.imageTokenId)
      const last = [root.prefix.length - 1]
      const logits = await tiny.logits.run(packed, tiny.features, tiny.network.weights, last)
      const weights = [...logits].map((z, token) => (banned.includes(token) ? 0 : Math.exp(z / temperature)))
      const total = weights.reduce((a, b) => a + b, 0)
      return weights.map((w) => w / total)
    }

    async function counts(temperature: number, model = endless): Promise<number[]> {
      const ask = request('chi', PROMPT, { samples: SAMPLES, maxNewTokens: 1, temperature, seed: 17 })
      const found = new Array<number>(tiny.architecture.text.vocab).fill(0)
      for (const { tokens } of await alone(about(0, ask), model)) found[tokens[0]!]!++
      return found
    }

    it.each([1, 0.5, 2])('of first tokens is that of the model at T = %d', async (temperature) => {
      const expected = (await probabilities(temperature)).map((p) => p * SAMPLES)
      const { statistic, freedom } = chiSquare(await counts(temperature), expected)
      expect(freedom).toBeGreaterThan(5)
      // Mean `freedom`, variance twice that: five standard deviations.
      expect(statistic).toBeLessThan(freedom + 5 * Math.sqrt(2 * freedom))
    })

    it('never has banned tokens, and the others in proportion', async () => {
      const likely = (await probabilities(1)).map((p, token) => ({ p, token })).toSorted((a, b) => b.p - a.p)
      const banned = likely.slice(0, 3).map(({ token }) => token)
      const { context, weights } = tiny.network
      const architecture = { ...context.architecture, banned }
      const network = new Network({ ...context, architecture }, weights, tiny.options)
      try {
        const model = { ...network.generation(), endTokens: new Set<number>() }
        const found = await counts(1, model)
        for (const token of banned) expect(found[token]).toBe(0)
        const expected = (await probabilities(1, banned)).map((p) => p * SAMPLES)
        const { statistic, freedom } = chiSquare(found, expected)
        expect(statistic).toBeLessThan(freedom + 5 * Math.sqrt(2 * freedom))
        const best = await alone(about(0, request('x', PROMPT, { temperature: 0, samples: 1, maxNewTokens: 1 })), model)
        expect(best[0]!.tokens).toEqual([likely[3]!.token])
      } finally {
        await network.dispose()
      }
    })
  })
})

it('random numbers are uniform, and those of neighbours unrelated', () => {
  const key = randomKey(1, 'some request')
  const bins = (values: readonly number[]) => {
    const found = new Array<number>(64).fill(0)
    for (const v of values) found[Math.floor(v * 64)]!++
    return chiSquare(found, new Array<number>(64).fill(values.length / 64)).statistic
  }
  const of = (f: (i: number) => number) => Array.from({ length: 16_384 }, (_, i) => f(i))
  const limit = 63 + 5 * Math.sqrt(2 * 63)
  expect(bins(of((i) => uniform(key, i, 0)))).toBeLessThan(limit)
  expect(bins(of((i) => uniform(key, 0, i)))).toBeLessThan(limit)
  expect(bins(of((i) => uniform(randomKey(i, 'x'), 0, 0)))).toBeLessThan(limit)
  expect(bins(of((i) => uniform(randomKey(0, `x${i}`), 0, 0)))).toBeLessThan(limit)
  // The fractional part of a sum with an independent number is uniform again.
  const step = (f: (i: number) => number) => of((i) => (f(i) + f(i + 1)) % 1)
  expect(bins(step((i) => uniform(key, i, 5)))).toBeLessThan(limit)
  expect(bins(step((i) => uniform(key, 5, i)))).toBeLessThan(limit)
  expect(bins(of((i) => (uniform(key, i, 1) + uniform(key, i + 1, 0)) % 1))).toBeLessThan(limit)
})

/** Pearson's statistic; cells that expect fewer than 5 are pooled. */
function chiSquare(found: readonly number[], expected: readonly number[]): { statistic: number; freedom: number } {
  let [statistic, cells, restFound, restExpected] = [0, 0, 0, 0]
  found.forEach((n, i) => {
    const e = expected[i]!
    if (e < 5) {
      restFound += n
      restExpected += e
    } else {
      statistic += (n - e) ** 2 / e
      cells++
    }
  })
  if (restExpected > 0) statistic += (restFound - restExpected) ** 2 / restExpected
  return { statistic, freedom: cells + (restExpected > 0 ? 1 : 0) - 1 }
}
