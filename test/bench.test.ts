/** The benchmark measures what it says: shapes of its output, never times. */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { graphFlops } from '../models/graph/flops.ts'
import { Graph } from '../models/graph/graph.ts'
import { attention, linear } from '../models/graph/ops.ts'
import { openCheckpoint } from '../models/io/safetensors.ts'
import { sizeOf, unread } from '../models/tensor.ts'
import { familyOf } from '../models/vlm/registry.ts'
import { type Architecture, checkpointPlan } from '../runners/bench/architectures.ts'
import { benchBandwidth, benchGemm, type BenchRow, benchSubject } from '../runners/bench/bench.ts'
import { benchCheckpoint, shards, writeWeights } from '../runners/bench/checkpoint.ts'
import { flops, flopsPerUnit, FORWARD } from '../runners/bench/flops.ts'
import { noisePicture } from '../runners/bench/workload.ts'

const root = mkdtempSync(join(tmpdir(), 'visplay-bench-test-'))
afterAll(() => rmSync(root, { recursive: true, force: true }))
const options = {
  threads: 1,
  rollouts: 'int8',
  repeats: 1,
  signal: new AbortController().signal,
  onNote: () => undefined,
} as const

describe('bench', () => {
  it('measures the matrix product', async () => {
    const row = await benchGemm(options)
    expect(row).toMatchObject({ row: 'gemm' })
    expect(row.gflops).toBeGreaterThan(0)
  })

  it('gives one row each for sessions, rollouts and steps with and without the tree', async () => {
    const dir = await benchCheckpoint('tiny', 64, root)
    const sampling = { samples: 2, temperature: 1 }
    const workload = {
      images: 2,
      prompt: 'ask',
      questions: { ...sampling, tokens: 4 },
      answers: { ...sampling, tokens: 2 },
    }
    const rows: BenchRow[] = []
    const subject = { name: 'tiny', dir, pixels: 64, train: 'lora', workloadName: '2x2x2', workload } as const
    for await (const row of benchSubject(subject, { gflopsPerCore: 100, gbPerSecond: 10 }, options)) rows.push(row)
    expect(rows.map((r) => [r.row, r.tree])).toEqual([
      ['sessions', undefined],
      ['rollout', undefined],
      ['step', true],
      ['step', false],
    ])
    for (const row of rows) {
      expect(row).toMatchObject({ model: 'tiny', pixels: 64, train: 'lora', rollouts: 'int8', workload: '2x2x2' })
      for (const value of Object.values(row)) if (typeof value === 'number') expect(value).not.toBeNaN()
    }
    // Every completion has the length asked for: the end token cannot be sampled.
    expect(rows[2]).toMatchObject({ newTokens: 2 * 2 * 4 + 4 * 2 * 2, completions: 2 * 2 + 4 * 2 })
    // What the rounded sampler reported is not what the policy says.
    expect(rows[2]!['logprobDifference/mean']).toBeGreaterThan(1e-4)
    expect(Number(rows[2]!.trainedTokens)).toBeLessThan(Number(rows[3]!.trainedTokens))
  })

  it('measures the bandwidth of memory', async () => {
    const row = await benchBandwidth(options)
    expect(row).toMatchObject({ row: 'bandwidth' })
    expect(row.gbPerSecond).toBe(Math.max(Number(row.product), Number(row.copy)))
    expect(row.product).toBeGreaterThan(0)
  })

  /** Without weights: sizes alone. */
  async function unit(architecture: Architecture, pixels: number) {
    const { files } = checkpointPlan(architecture, pixels)
    const dir = join(root, `${architecture} ${pixels} without weights`)
    mkdirSync(dir)
    for (const [name, text] of Object.entries(files)) writeFileSync(join(dir, name), text)
    const { architecture: own, processor } = await (await familyOf(dir)).open(dir)
    const total = own.weights.reduce((n, { dims }) => n + sizeOf(dims), 0)
    return { ...flopsPerUnit(own, await noisePicture(processor, pixels)), total, own }
  }

  it("knows SmolVLM-256M's operations", async () => {
    const { text, head, vision } = await unit('smolvlm-256m', 512)
    // 106,168,320 weights in the text layers, 49,280 × 576 in the head, as published.
    expect(flops({ text, head, vision }, { tokens: 1, predicted: 0, pictures: 0 }, FORWARD)).toBe(2 * 106_168_320)
    expect(flops({ text, head, vision }, { tokens: 0, predicted: 1, pictures: 0 }, FORWARD)).toBe(2 * 49_280 * 576)
    // 1024 patches through 12 layers of 4·768² + 2·768·3072 weights and an embedding of 768², 64 tokens through the connector.
    const layers = 12 * (4 * 768 ** 2 + 2 * 768 * 3072) + 768 ** 2
    expect(vision).toBe(2 * 1024 * layers + 2 * 64 * 16 * 768 * 576)
  })

  it("knows Qwen2.5-VL-3B's and LLaVA 1.5's operations", async () => {
    const qwen = await unit('qwen2.5-vl-3b', 448)
    expect(qwen.total).toBe(3_754_622_976)
    // 36 layers: queries and outputs 2048², keys and values 2048·256, three of 2048·11,008.
    expect(qwen.text).toBe(2 * 36 * (2 * 2048 ** 2 + 2 * 2048 * 256 + 3 * 2048 * 11_008))
    expect(qwen.head).toBe(2 * 151_936 * 2048)
    const patches = 32 * 32
    const block = 4 * 1280 ** 2 + 3 * 1280 * 3420
    const merger = (patches / 4) * (5120 ** 2 + 5120 * 2048)
    expect(qwen.vision).toBe(2 * (patches * (32 * block + 1280 * 1176) + merger))
    const llava = await unit('llava-1.5-7b', 336)
    expect(llava.total).toBe(7_063_427_072)
    expect(llava.text).toBe(2 * 32 * (4 * 4096 ** 2 + 3 * 4096 * 11_008))
  })

  it('writes weights in shards that the family reads, never whole in memory', async () => {
    const weights = [
      { name: 'a.weight', dims: [30, 40] },
      { name: 'b.weight', dims: [2, 600_000] },
      { name: 'c.bias', dims: [10] },
    ]
    const dir = join(root, 'shards')
    mkdirSync(dir)
    await writeWeights(dir, shards(weights, 'bfloat16', 3000), 'bfloat16')
    const checkpoint = await openCheckpoint(dir)
    expect(checkpoint.names().toSorted()).toEqual(['a.weight', 'b.weight', 'c.bias'])
    expect(new Set(checkpoint.names().map((name) => checkpoint.info(name).file)).size).toBe(3)
    const { data } = await checkpoint.readF32('b.weight')
    // Longer than the numbers that repeat in it.
    expect(data[1_048_573]).toBe(data[0])
    expect(new Set(data.subarray(0, 100)).size).toBeGreaterThan(50)
    await checkpoint.close()
  })

  it('counts the products of a graph with and without weights', () => {
    const graph = new Graph()
    const x = graph.input('x', 'float32', ['B', 'N', 8])
    const w = graph.initializer('w', unread('w', [6, 8]))
    const y = linear(x, w)
    const unused = linear(y, graph.initializer('v', unread('v', [4, 6])))
    const mixed = attention(y, y, y, null, { heads: 3, kvHeads: 3 })
    expect(unused.dims).toEqual(['B', 'N', 4])
    const counted = graphFlops(graph, [mixed], { B: 2, N: 5 })
    expect(counted).toEqual({ weights: 2 * 2 * 5 * 8 * 6, attention: 2 * 2 * 2 * 5 * 5 * 6 })
    expect(() => graphFlops(graph, [mixed], { B: 2 })).toThrow('symbol N')
  })
})
