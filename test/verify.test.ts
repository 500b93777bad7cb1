import { execFile } from 'node:child_process'
import { cpSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, relative } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { Verified } from '../models/losses/verify-grpo.ts'
import { verifyGrpo } from '../models/losses/verify-grpo.ts'
import { GoldenImages } from '../models/vlm/verify/golden-images.ts'
import { openVariant, type Variant } from '../models/vlm/verify/variant.ts'
import { type Section, sectionsOf, verifySection } from '../models/vlm/verify/verify.ts'
import { NoGoldensError, verifyGoldens, type VerifyLine } from '../runners/verify.ts'
import { familyVariants, goldenCases, goldens, qwenVariants, smolVlmVariants } from './support/goldens.ts'
import { flipBit, alterJson, alterTensor } from './support/alter.ts'
import { rng } from './support/rng.ts'

const temporary = mkdtempSync(join(tmpdir(), 'visplay-verify-'))
afterAll(() => rmSync(temporary, { recursive: true, force: true }))

// Two threads of a tiny model wait for each other more than they compute.
const options = { threads: 1 }
const isFailure = (line: VerifyLine): line is Verified => 'pass' in line && !line.pass

async function collect(lines: AsyncGenerator<VerifyLine>): Promise<VerifyLine[]> {
  const all: VerifyLine[] = []
  for await (const line of lines) all.push(line)
  return all
}

async function firstFailure(lines: AsyncGenerator<VerifyLine>): Promise<Verified | null> {
  for await (const line of lines) if (isFailure(line)) return line
  return null
}

/** Files of goldens under `dir`; texts for people and what made them are none. */
function goldenFiles(dir: string): string[] {
  return readdirSync(dir, { recursive: true, withFileTypes: true })
    .filter((e) => e.isFile() && !/\.(md|py|pyc)$/.test(e.name) && e.name !== 'pillow-resize.json')
    .map((e) => relative(dir, join(e.parentPath, e.name)))
    .toSorted()
}

it('recomputes every value of the goldens', async () => {
  const lines = await collect(verifyGoldens(goldens, options))
  expect(lines.filter(isFailure)).toEqual([])
  const verified = lines.filter((line) => 'pass' in line)
  expect(verified.filter((line) => line.quantity === 'file').length).toBeGreaterThan(150)
  const computed = (variant: string) =>
    verified.filter((line) => line.case.startsWith(`${variant}/`) && line.quantity !== 'file')
  for (const variant of smolVlmVariants) expect(computed(variant).length, variant).toBeGreaterThan(500)
  for (const variant of familyVariants) {
    const sections = new Set(computed(variant).map((line) => line.case.slice(variant.length + 1)))
    const cases = goldenCases(variant).map((name) => `cases/${name}`)
    expect([...sections].toSorted(), variant).toEqual([...cases, ...SECTIONS].toSorted())
    const quantities = new Set(computed(variant).map((line) => line.quantity))
    for (const quantity of EVERYWHERE) expect(quantities, `${variant}: ${quantity}`).toContain(quantity)
  }
  for (const [variant, expected] of [
    ['smolvlm/tiny64', EXPECTED],
    [qwenVariants[0]!, EXPECTED_OF_QWEN],
  ] as const) {
    const quantities = new Set(computed(variant).map((line) => line.quantity))
    for (const quantity of expected) expect(quantities, quantity).toContain(quantity)
  }
})

/** Only in those of Qwen2.5-VL. */
const EXPECTED_OF_QWEN = [
  ...['image_grid_thw', 'position_ids', 'rope_delta', 'rope_deltas', 'vision.position_ids', 'vision.window_index'],
  ...['vision.cu_window_seqlens', 'gradient of visual.patch_embed.proj.weight: l2'],
  ...['gradient of model.layers.0.self_attn.k_proj.bias: l2', 'gradient of visual.merger.mlp.2.bias: sum'],
]

const SECTIONS = ['preprocessing', 'batch', 'train/sft', 'train/merged', 'train/grpo']
/** In the goldens of every family. */
const EVERYWHERE = [
  ...[
    'prompt',
    'input_ids',
    'image_token_runs',
    'position_ids',
    'pixel_values.uint8',
    'pixel_values',
    'image_features',
  ],
  ...['logits', 'logits_last', 'greedy tokens', 'greedy tokens (cached)', 'greedy text', 'cached = uncached'],
  ...['completion logprobs', 'completion entropies', 'batched = single (multi_turn)', 'loss', 'without_gradient'],
  ...['names of gradient summaries', 'names of gradients', 'adapter logits', 'merged logits', 'logps', 'advantages'],
  ...['adapter after step 1', 'adapter after step 3', 'step 3: gradient norm'],
]

const EXPECTED = [
  ...['prompt', 'input_ids', 'image_token_runs', 'tile_rows', 'tile_cols', 'position_ids', 'pixel_values.uint8'],
  ...['pixel_values', 'pixel_values_on_white', 'image_features', 'logits', 'logits_last', 'greedy tokens'],
  ...['greedy tokens (cached)', 'cached = uncached', 'completion logprobs', 'completion entropies', 'argmax_last'],
  ...['batched = single (multi_turn)', 'loss', 'gradient of model.vision_model.embeddings.patch_embedding.weight'],
  ...['gradient of model.text_model.embed_tokens.weight: l2', 'adapter logits', 'merged logits', 'advantages'],
  ...['adapter after step 1', 'adapter after step 3', 'step 3: gradient norm', 'metrics: clip_ratio/low_mean'],
]

describe('an altered copy', () => {
  const copy = join(temporary, 'goldens')
  beforeAll(() => cpSync(goldens, copy, { recursive: true }))

  it('fails whatever the file, however small the change', async () => {
    const random = rng(5)
    const files = goldenFiles(copy)
    for (let i = 0; i < 40; i++) {
      const file = files[Math.floor(random() * files.length)]!
      const before = readFileSync(join(copy, file))
      writeFileSync(join(copy, file), flipBit(before, random))
      const part = file.includes('/') ? file.split('/')[0]! : '.'
      const failure = await firstFailure(verifyGoldens(join(copy, part), options))
      writeFileSync(join(copy, file), before)
      expect(failure, `${file} after flip ${i}`).toMatchObject({ pass: false })
    }
  })

  it('is found where it lies under another name and without its neighbours', async () => {
    const moved = join(temporary, 'renamed')
    cpSync(join(copy, 'smolvlm/tiny64'), join(moved, 'mine'), { recursive: true })
    const file = join(moved, 'mine/train/grpo_batch.safetensors')
    writeFileSync(file, flipBit(readFileSync(file), rng(6)))
    const lines = verifyGoldens(join(moved, 'mine'), options)
    expect(await firstFailure(lines)).toMatchObject({ case: 'mine/train/grpo_batch.safetensors', quantity: 'file' })
    for await (const line of verifyGoldens(join(moved, 'mine'), { ...options, digests: false }))
      expect('pass' in line && line.quantity).not.toBe('file')
  })
})

describe.each(familyVariants)('without digests, %s', (name) => {
  const dir = join(temporary, 'unknown', name)
  let variant: Variant
  let sections: Section[]
  beforeAll(async () => {
    cpSync(join(goldens, name), dir, { recursive: true })
    variant = await openVariant(dir, await GoldenImages.open(join(goldens, 'images')), options)
    sections = await sectionsOf(dir)
  })
  afterAll(() => variant.dispose())

  /** The section that compares a file. */
  const sectionOf = (file: string): Section => {
    const name = file
      .replace(/\.\w+$/, '')
      .replace(/^train\/(?!sft).*/, 'train/adapter')
      .replace(/^train\/sft.*/, 'train/sft')
    return sections.find((section) => section.name === name)!
  }

  it('altered values are noticed by what they should have been', async () => {
    const random = rng(7)
    const files = goldenFiles(dir).filter((f) => !f.startsWith('checkpoint/') && !f.endsWith('adapter_config.json'))
    for (let i = 0; i < 24; i++) {
      const file = files[Math.floor(random() * files.length)]!
      const before = readFileSync(join(dir, file))
      const { bytes, what } = (file.endsWith('.json') ? alterJson : alterTensor)(before, random, UNRELATED)
      writeFileSync(join(dir, file), bytes)
      const failure = await firstFailure(verifySection(sectionOf(file), variant))
      writeFileSync(join(dir, file), before)
      expect(failure, `${file}: ${what}`).not.toBeNull()
    }
  })
})

it('altered inputs and outputs of a loss are noticed', async () => {
  const cases = JSON.parse(readFileSync(join(goldens, 'grpo/cases.json'), 'utf8')) as Record<string, unknown>
  const random = rng(8)
  for (const name of ['kl_k3', 'sampler_token_truncate', 'two_rewards_weighted', 'dapo']) {
    const alone = join(temporary, `grpo-${name}`)
    mkdirSync(alone)
    const json = Buffer.from(JSON.stringify({ [name]: cases[name] }))
    const tensors = readFileSync(join(goldens, 'grpo', `${name}.safetensors`))
    const write = (a: Buffer, b: Buffer) => {
      writeFileSync(join(alone, 'cases.json'), a)
      writeFileSync(join(alone, `${name}.safetensors`), b)
    }
    write(json, tensors)
    expect(await firstFailure(verifyGrpo(alone))).toBeNull()
    const field = alterTensor(tensors, random, /^(old|sampler|ref)_logps|^logps|entropies|mask/)
    write(json, field.bytes)
    expect(await firstFailure(verifyGrpo(alone)), `${name}: ${field.what}`).not.toBeNull()
    const result = alterJson(json, random, /config|about|shape|num_generations/)
    write(result.bytes, tensors)
    expect(await firstFailure(verifyGrpo(alone)), `${name}: ${result.what}`).not.toBeNull()
  }
})

/**
 * Values that recomputing cannot check: measured gaps of another implementation, old logprobs (an input that the clip may
 * drop), cells under the mask, settings that this loss does not use, an index of another pixel of the same colour.
 */
const UNRELATED =
  /torchvision|^(old_|ref_)?logps|^entropies|max_grad_norm|config|pixel_values\.index|sum$|adam_eps|weight_decay|betas/

it('says what it cannot verify', async () => {
  const dir = join(temporary, 'other')
  mkdirSync(join(dir, 'family/variant/checkpoint'), { recursive: true })
  writeFileSync(join(dir, 'family/variant/checkpoint/config.json'), '{"model_type":"paligemma"}')
  mkdirSync(join(dir, 'family/broken/checkpoint'), { recursive: true })
  writeFileSync(join(dir, 'family/broken/checkpoint/config.json'), '{"model_type":')
  const lines = await collect(verifyGoldens(dir))
  expect(lines).toContainEqual(expect.objectContaining({ event: 'skipped', case: 'other/family/variant' }))
  expect(lines).toContainEqual(expect.objectContaining({ case: 'other/family/broken', quantity: 'error', pass: false }))
  mkdirSync(join(temporary, 'empty'))
  await expect(collect(verifyGoldens(join(temporary, 'empty')))).rejects.toThrow(NoGoldensError)
})

it('needs the pictures', async () => {
  const dir = join(temporary, 'lonely/tiny64')
  cpSync(join(goldens, 'smolvlm/tiny64'), dir, { recursive: true })
  const failure = await firstFailure(verifyGoldens(dir, options))
  expect(failure).toMatchObject({ case: 'tiny64', quantity: 'error' })
  expect(failure!.message).toContain('images/images.json')
})

describe('command', () => {
  const visplay = (...args: string[]): Promise<{ code: number; lines: Record<string, unknown>[] }> =>
    new Promise((resolve) => {
      const bin = join(import.meta.dirname, '../runners/bin.mjs')
      execFile(process.execPath, [bin, ...args], { maxBuffer: 2 ** 24 }, (error, stdout) => {
        const lines = stdout.split('\n').filter(Boolean)
        resolve({ code: Number(error?.code ?? 0), lines: lines.map((l) => JSON.parse(l) as Record<string, unknown>) })
      })
    })

  it('prints a line per quantity, then the counts; fails on a failure', async () => {
    const good = await visplay('verify', join(goldens, 'images'), '--json')
    expect(good.code).toBe(0)
    expect(good.lines[0]).toEqual({
      ...{ case: expect.any(String) as string, quantity: 'file' },
      ...{ maxError: 0, tolerance: 0, pass: true },
    })
    expect(good.lines.at(-1)).toMatchObject({ event: 'done', passed: good.lines.length - 1, failed: 0, skipped: 0 })
    const dir = join(temporary, 'damaged')
    cpSync(join(goldens, 'images'), dir, { recursive: true })
    writeFileSync(join(dir, 'square64.png'), flipBit(readFileSync(join(dir, 'square64.png')), rng(9)))
    const bad = await visplay('verify', dir, '--json')
    expect(bad.code).toBe(1)
    expect(bad.lines.filter((line) => line.pass === false).length).toBe(bad.lines.at(-1)!.failed)
    expect(bad.lines.at(-1)!.digests).toBeGreaterThan(10)
  })
})
