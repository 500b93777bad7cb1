import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { Graph } from '../models/graph/graph.ts'
import { positionDims, turnBy } from '../models/layers/rotary.ts'
import type { TextArchitecture } from '../models/layers/text-config.ts'
import { Session } from '../models/runtime/session.ts'
import { f32, i32 } from '../models/tensor.ts'
import { rng } from './support/rng.ts'

const [IMAGES, TOKENS, HEADS, SIZE] = [2, 5, 3, 16]
const text = (mropeSection: TextArchitecture['mropeSection']): TextArchitecture => ({
  ...{ hiddenSize: HEADS * SIZE, layers: 1, heads: HEADS, kvHeads: HEADS, headDim: SIZE, intermediate: 8, vocab: 8 },
  ...{ rmsEps: 1e-6, ropeTheta: 10_000, tied: true, prefix: 'text', attentionBias: false, mropeSection },
})

async function turned(section: TextArchitecture['mropeSection'], x: Float32Array, positions: number[]) {
  const architecture = text(section)
  const graph = new Graph()
  const input = graph.input('x', 'float32', ['I', 'N', HEADS * SIZE])
  const at = graph.input('positions', 'int32', positionDims(architecture, ['I', 'N']))
  const session = await Session.create(graph, { y: turnBy(architecture, at)(input, HEADS) }, { threads: 1 })
  const dims = [IMAGES, TOKENS]
  const feeds = { x: f32(x, [...dims, HEADS * SIZE]), positions: i32(positions, section ? [3, ...dims] : dims) }
  const { y } = await session.run(feeds)
  await session.release()
  return y!.data as Float32Array
}

const noise = (seed: number) => {
  const random = rng(seed)
  return Float32Array.from({ length: IMAGES * TOKENS * HEADS * SIZE }, () => random() - 0.5)
}
const place = fc.array(fc.nat({ max: 500 }), { minLength: IMAGES * TOKENS, maxLength: IMAGES * TOKENS })

describe('M-RoPE', () => {
  it('with equal positions on all axes is the plain rotation, to the bit', async () => {
    const positions = Array.from({ length: IMAGES * TOKENS }, (_, i) => (i * 37) % 211)
    const x = noise(1)
    const plain = await turned(null, x, positions)
    expect(await turned([2, 3, 3], x, [positions, positions, positions].flat())).toEqual(plain)
  })

  it('turns each pair by the position of its axis', async () => {
    const section = [2, 3, 3] as const
    const axisOf = (pair: number) => (pair < section[0] ? 0 : pair < section[0] + section[1] ? 1 : 2)
    const cases = fc.tuple(place, place, place, fc.nat({ max: 99 }))
    await fc.assert(
      fc.asyncProperty(cases, async ([t, h, w, seed]) => {
        const x = noise(seed)
        const y = await turned([...section], x, [...t, ...h, ...w])
        const half = SIZE / 2
        for (let row = 0; row < IMAGES * TOKENS * HEADS; row++)
          for (let pair = 0; pair < half; pair++) {
            const position = [t, h, w][axisOf(pair)]![Math.floor(row / HEADS)]!
            const angle = Math.fround(position * Math.fround(1 / Math.fround(10_000 ** ((2 * pair) / SIZE))))
            const [a, b] = [x[row * SIZE + pair]!, x[row * SIZE + half + pair]!]
            expect(y[row * SIZE + pair]).toBeCloseTo(a * Math.cos(angle) - b * Math.sin(angle), 5)
            expect(y[row * SIZE + half + pair]).toBeCloseTo(b * Math.cos(angle) + a * Math.sin(angle), 5)
          }
      }),
      { numRuns: 10 },
    )
  })
})
