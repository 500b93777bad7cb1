import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { fullGrpoConfig, type GrpoConfig } from '../models/losses/grpo-config.ts'
import { addMetrics, lossMetrics } from '../models/losses/metrics.ts'
import type { Weights } from '../models/tensor.ts'
import { packedLength, packTrees, type TreeRoot } from '../models/tree/pack.ts'
import { addWeights } from '../models/vlm/weights.ts'
import type { PolicyRow, UpdateResult } from '../models/vlm/network.ts'
import { rng } from './support/rng.ts'
import { openTiny, TINY, type TinyVariant, WORDS } from './support/tiny-variant.ts'

const IMAGE = 638
const token = fc.integer({ min: 0, max: WORDS - 1 })
const completion = fc.array(token, { minLength: 1, maxLength: 6 })
const prompt = (fewest: number) =>
  fc.record({
    tokens: fc.array(token, { maxLength: 5 }),
    completions: fc.array(completion, { minLength: fewest, maxLength: 4 }),
  })
const tree = (fewest: number) =>
  fc.array(
    fc.record({
      picture: fc.option(fc.nat({ max: 2 })),
      prompts: fc.array(prompt(fewest), { minLength: 1, maxLength: 3 }),
    }),
    { minLength: 1, maxLength: 3 },
  )
type Plan = readonly { readonly picture: number | null; readonly prompts: TreeRoot['prompts'] }[]

describe('packing', () => {
  /** Token by token: the path from the root, as (position, token) pairs. */
  interface Placed {
    readonly token: number
    readonly path: readonly number[]
  }

  /** What depth-first order means, written without any of the bookkeeping. */
  function placedTokens({ prefix, prompts }: TreeRoot): {
    placed: Placed[]
    predictions: [predictor: number, target: number][]
  } {
    const placed: Placed[] = []
    const predictions: [number, number][] = []
    const put = (tokens: readonly number[], above: readonly number[]): number[] => {
      const path = [...above]
      for (const token of tokens) {
        path.push(placed.length)
        placed.push({ token, path: [...path] })
      }
      return path
    }
    const root = put(prefix, [])
    for (const { tokens, completions } of prompts) {
      const parent = put(tokens, root)
      for (const c of completions) {
        const path = put(c.slice(0, -1), parent)
        c.forEach((target, t) => predictions.push([path[parent.length - 1 + t]!, target]))
      }
    }
    return { placed, predictions }
  }

  it('every token sees its path and nothing else, at the depth of the path', () => {
    const roots = tree(0).map((plan) =>
      plan.map(({ picture, prompts }) => ({
        prefix: picture === null ? [1] : [1, 2, IMAGE, IMAGE, 3],
        firstFeature: (picture ?? 0) * 2,
        prompts,
      })),
    )
    fc.assert(
      fc.property(roots, (given) => {
        const packed = packTrees(given, IMAGE)
        const predictions: [number, number][] = []
        given.forEach((root, image) => {
          const base = image * packed.length
          const own = placedTokens(root)
          expect(own.placed.length).toBe(packedLength(root))
          own.placed.forEach(({ token, path }, i) => {
            expect(packed.ids[base + i]).toBe(token)
            expect(packed.positions[base + i]).toBe(path.length - 1)
            const seen = own.placed.flatMap((_, j) => (j <= i && i < packed.ends[base + j]! ? [j] : []))
            expect(seen).toEqual(path)
            const place = root.prefix.slice(0, i).filter((t) => t === IMAGE).length
            expect(packed.featureIndex[base + i]).toBe(token === IMAGE ? root.firstFeature + place : -1)
          })
          for (let i = own.placed.length; i < packed.length; i++) expect(packed.ends[base + i]).toBe(i + 1)
          predictions.push(...own.predictions.map(([at, target]): [number, number] => [base + at, target]))
        })
        expect([...packed.predictors].map((at, i) => [at, packed.targets[i]])).toEqual(predictions)
        expect(packed.tokens).toBe(given.reduce((n, root) => n + packedLength(root), 0))
      }),
      { numRuns: 200 },
    )
  })

  it('a prefix may bring three positions a token; what follows goes on behind them on every axis', () => {
    const place = fc.record({ values: fc.array(fc.nat({ max: 9 }), { minLength: 12, maxLength: 12 }), next: fc.nat() })
    const roots = fc.array(fc.record({ place, prompts: fc.array(prompt(0), { minLength: 1, maxLength: 3 }) }), {
      minLength: 1,
      maxLength: 3,
    })
    fc.assert(
      fc.property(roots, (given) => {
        const rooted = given.map(({ place: { values, next }, prompts }) => ({
          ...{ prefix: [1, IMAGE, IMAGE, 3], firstFeature: 0, prompts },
          positions: { axes: 3 as const, values: Int32Array.from(values), next: next % 1000 },
        }))
        const packed = packTrees(rooted, IMAGE)
        expect(packed.positionDims).toEqual([3, given.length, packed.length])
        rooted.forEach((root, image) => {
          placedTokens(root).placed.forEach(({ path }, i) => {
            for (const axis of [0, 1, 2]) {
              const own = packed.positions[(axis * given.length + image) * packed.length + i]
              const { values, next } = root.positions
              expect(own).toBe(path.length <= 4 ? values[axis * 4 + path.length - 1] : next + path.length - 5)
            }
          })
        })
      }),
    )
  })

  it('refuses a batch in which only some prefixes bring positions', () => {
    const root = { prefix: [1], firstFeature: 0, prompts: [] }
    const placed = { ...root, positions: { axes: 3 as const, values: Int32Array.of(0, 0, 0), next: 1 } }
    expect(() => packTrees([root, placed], IMAGE)).toThrow('all bring positions')
  })

  it('refuses completions of nothing', () => {
    expect(() =>
      packTrees([{ prefix: [], firstFeature: 0, prompts: [{ tokens: [], completions: [[1]] }] }], IMAGE),
    ).toThrow('at least one token')
  })
})

describe.each(TINY)('%s: packed = every sequence alone', (name) => {
  let tiny: TinyVariant
  beforeAll(async () => void (tiny = await openTiny(name)))
  afterAll(() => tiny.dispose())

  /** The first completion of every prompt comes twice. */
  const twice = (completions: readonly (readonly number[])[]) => [...completions, completions[0]!]
  const rootsOf = (plan: Plan): TreeRoot[] =>
    plan.map(({ picture, prompts }) => ({
      ...tiny.root(picture),
      prompts: prompts.map(({ tokens, completions }) => ({ tokens, completions: twice(completions) })),
    }))
  /** Each completion as an ordinary sequence, without any sharing. */
  const alone = (plan: Plan): TreeRoot[] =>
    plan.flatMap(({ picture, prompts }) =>
      prompts.flatMap(({ tokens, completions }) =>
        twice(completions).map((c) => ({
          ...tiny.root(picture, tokens),
          prompts: [{ tokens: [], completions: [c] }],
        })),
      ),
    )
  const pack = (roots: readonly TreeRoot[]) => packTrees(roots, tiny.architecture.imageTokenId)

  it('logprobs and entropies', async () => {
    await fc.assert(
      fc.asyncProperty(tree(1), async (plan) => {
        const roots = rootsOf(plan)
        const image = { kind: 'given', features: tiny.features } as const
        const together = await tiny.network.score(pack(roots), image)
        for (const [i, root] of alone(plan).entries()) {
          const single = await tiny.network.score(pack([root]), image)
          expectClose(together.logprobs[i]!, single.logprobs[0]!, 5e-5)
          expectClose(together.entropies[i]!, single.entropies[0]!, 5e-5)
        }
      }),
      { seed: 11, numRuns: 8 },
    )
  })

  it('supervised gradient of every parameter, through the vision tower', async () => {
    await fc.assert(
      fc.asyncProperty(tree(1), fc.integer(), async (plan, seed) => {
        const roots = rootsOf(plan)
        const packed = pack(roots)
        const random = rng(seed)
        const weights = Float32Array.from(packed.targets, () => random() - 0.3)
        const image = { kind: 'pixels', input: tiny.pixels } as const
        const together = await tiny.network.supervisedGradient(packed, image, weights)
        const singles: UpdateResult[] = []
        for (const [i, root] of alone(plan).entries()) {
          const { start, length } = packed.spans[i]!
          const own = weights.slice(start, start + length)
          singles.push(await tiny.network.supervisedGradient(pack([root]), image, own))
        }
        expect(together.loss).toBeCloseTo(
          singles.reduce((sum, s) => sum + s.loss, 0),
          3,
        )
        expectSameGradients(together.gradients, addWeights(singles.map((s) => s.gradients)))
      }),
      { seed: 12, numRuns: 3 },
    )
  })

  const base = {
    loss_type: 'dapo',
    epsilon: 0.2,
    epsilon_high: 0.28,
    delta: null,
    beta: 0.05,
    sampler_cap: null,
  } as const
  const configs: [string, GrpoConfig][] = [
    ['with a KL term', base],
    ['with a correction against the sampler', { ...base, beta: 0, sampler_cap: 1.1 }],
    ['with sequence ratios and a two-sided clip', { ...base, importance_sampling_level: 'sequence', delta: 1.3 }],
  ]
  it.each(configs)('policy gradient and metrics %s; a leaf stands for identical samples', async (_, partial) => {
    const config = fullGrpoConfig(partial)
    await fc.assert(
      fc.asyncProperty(tree(1), fc.integer(), async (plan, seed) => {
        const roots = rootsOf(plan)
        const packed = pack(roots)
        const image = { kind: 'given', features: tiny.features } as const
        const rows = policyRows((await tiny.network.score(packed, image)).logprobs, rng(seed))
        const together = await tiny.network.policyGradient(packed, image, rows, config)
        const samples: UpdateResult[] = []
        for (const [i, root] of alone(plan).entries()) {
          const { count, weight, ...rest } = rows[i]!
          const one = { ...rest, count: 1, weight: weight / count }
          const single = await tiny.network.policyGradient(pack([root]), image, [one], config)
          for (let s = 0; s < count; s++) samples.push(single)
        }
        expect(together.loss).toBeCloseTo(
          samples.reduce((sum, s) => sum + s.loss, 0),
          4,
        )
        expectSameGradients(together.gradients, addWeights(samples.map((s) => s.gradients)))
        const expected = lossMetrics(addMetrics(samples.map((s) => s.metrics)))
        const metrics = lossMetrics(together.metrics)
        expect(Object.keys(metrics)).toEqual(Object.keys(expected))
        expectClose(Object.values(metrics), Object.values(expected), 1e-4)
      }),
      { seed: 13, numRuns: 2 },
    )
  })

  it("policy gradient without the sampler's logprobs: the policy itself sampled", async () => {
    const config = fullGrpoConfig({ ...base, beta: 0 })
    const [plan] = fc.sample(tree(1), { seed: 5, numRuns: 1 })
    const packed = pack(rootsOf(plan!))
    const image = { kind: 'given', features: tiny.features } as const
    const { logprobs } = await tiny.network.score(packed, image)
    const rows = policyRows(logprobs, rng(5))
    const update = (old: (i: number) => readonly number[] | null) =>
      tiny.network.policyGradient(
        packed,
        image,
        rows.map((row, i) => ({ ...row, logprobs: old(i) })),
        config,
      )
    const [own, given] = [await update(() => null), await update((i) => logprobs[i]!)]
    expect(own.loss).toBeCloseTo(given.loss, 5)
    expectSameGradients(own.gradients, given.gradients)
  })

  /** Samplers and references near the policy, so that some ratios are clipped and some are not. */
  function policyRows(logprobs: readonly (readonly number[])[], random: () => number): PolicyRow[] {
    const near = (values: readonly number[]) => values.map((x) => x + 0.5 * (random() - 0.5))
    return logprobs.map((own) => {
      const count = 1 + Math.floor(3 * random())
      const advantage = 2 * random() - 1
      return { advantage, weight: count * 0.1, count, logprobs: near(own), refLogprobs: near(own) }
    })
  }
})

function expectClose(actual: readonly number[], expected: readonly number[], tolerance: number): void {
  expect(actual.length).toBe(expected.length)
  const errors = actual.map((x, i) => Math.abs(x - expected[i]!))
  expect(Math.max(0, ...errors)).toBeLessThanOrEqual(tolerance)
}

/** Per tensor, relative to its largest element; a gradient that is zero by algebra is compared with the largest of all. */
function expectSameGradients(actual: Weights, expected: Weights): void {
  expect(Object.keys(actual).toSorted()).toEqual(Object.keys(expected).toSorted())
  const most = (data: Float32Array) => data.reduce((m, x) => Math.max(m, Math.abs(x)), 0)
  const top = Math.max(...Object.values(expected).map(({ data }) => most(data)))
  for (const [name, { data }] of Object.entries(expected)) {
    const floor = Math.max(most(data), 1e-3 * top)
    const error = most(data.map((x, i) => x - actual[name]!.data[i]!))
    expect(error / floor, name).toBeLessThanOrEqual(1e-3)
  }
}
