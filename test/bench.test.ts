/** The benchmark measures what it says: shapes of its output, never times. */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { checkpointPlan } from '../runners/bench/architectures.ts'
import { benchGemm, type BenchRow, benchSubject } from '../runners/bench/bench.ts'
import { benchCheckpoint } from '../runners/bench/checkpoint.ts'
import { flops, flopsPerUnit, FORWARD } from '../runners/bench/flops.ts'
import { loadSmolVlmConfig } from '../models/vlm/smolvlm/config.ts'

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
    const subject = { name: 'tiny', dir, train: 'lora', workloadName: '2x2x2', workload } as const
    for await (const row of benchSubject(subject, 100, options)) rows.push(row)
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

  it("knows SmolVLM-256M's operations", async () => {
    const { files } = checkpointPlan('smolvlm-256m', 512)
    expect(Object.keys(files)).toContain('tokenizer.json')
    const dir = join(root, 'config')
    mkdirSync(dir)
    for (const [name, text] of Object.entries(files)) writeFileSync(join(dir, name), text)
    const unit = flopsPerUnit(await loadSmolVlmConfig(dir), 512)
    // 106,168,320 weights in the text layers, 49,280 × 576 in the head, as published.
    expect(flops(unit, { tokens: 1, predicted: 0, pictures: 0 }, FORWARD)).toBe(2 * 106_168_320)
    expect(flops(unit, { tokens: 0, predicted: 1, pictures: 0 }, FORWARD)).toBe(2 * 49_280 * 576)
    expect(unit.vision / 1e9).toBeGreaterThan(170)
  })
})
