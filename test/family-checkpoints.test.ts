import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { loadConfig } from '../configs/load.ts'
import { openCheckpoint } from '../models/io/safetensors.ts'
import type { PolicyGroup } from '../models/model.ts'
import { f32, type Weights } from '../models/tensor.ts'
import { openModel } from '../models/vlm/open.ts'
import { loadRunModel, writeCheckpoint } from '../runners/evolve/load.ts'
import { familyVariants, goldenImage, goldens } from './support/goldens.ts'
import { rng } from './support/rng.ts'

let dir: string
beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'visplay-checkpoints-'))
})
afterEach(() => rm(dir, { recursive: true }))

const image = { key: 'square', read: () => readFile(goldenImage('square64.png')) }
const groups: PolicyGroup[] = [
  { image, prompt: 'How many?', completions: [{ tokens: [40, 50, 60], logprobs: null, advantage: 0, weight: 1 }] },
]

/** Weights a little off. */
function moved(weights: Weights): Weights {
  const random = rng(3)
  return Object.fromEntries(
    Object.entries(weights).map(([name, { data, dims }]) => [
      name,
      f32(
        data.map((x) => x + 0.05 * (random() - 0.5)),
        dims,
      ),
    ]),
  )
}

async function names(folder: string): Promise<string[]> {
  const checkpoint = await openCheckpoint(folder)
  await checkpoint.close()
  return checkpoint.names().toSorted()
}

describe.each(familyVariants)('%s', (variant) => {
  const base = join(goldens, variant, 'checkpoint')
  const configOf = (train: string) =>
    loadConfig({ preset: null, sets: [`model.dir=${base}`, `model.train=${train}`, 'model.threads=1'] })

  it.each(['full', 'vision'])('writes trained weights (%s) under the names that the checkpoint has', async (train) => {
    const config = configOf(train)
    const model = await loadRunModel(config)
    const weights = moved(model.trainable())
    model.load(weights)
    const before = await model.logprobs(groups)
    await model.dispose()
    const to = join(dir, 'whole')
    await writeCheckpoint(to, weights, config)
    expect(await names(to)).toEqual(await names(base))
    const again = await openModel(to, { threads: 1, train: { kind: 'full' } })
    const read = again.trainable()
    for (const [name, { data }] of Object.entries(weights)) expect(read[name]!.data, name).toEqual(data)
    const after = await again.logprobs(groups)
    after[0]![0]!.forEach((x, t) => expect(x).toBeCloseTo(before[0]![0]![t]!, 3))
    await again.dispose()
  })

  it('writes an adapter as it is, and merged into the layers that it changes', async () => {
    const config = configOf('lora')
    const model = await loadRunModel(config)
    const weights = moved(model.trainable())
    const untrained = await model.logprobs(groups)
    model.load(weights)
    const [[before]] = (await model.logprobs(groups)) as [[number[]]]
    await model.dispose()
    expect(Math.abs(before[0]! - untrained[0]![0]![0]!)).toBeGreaterThan(1e-3)
    await writeCheckpoint(join(dir, 'peft'), weights, config)
    await writeCheckpoint(join(dir, 'merged'), weights, config, 'whole')
    expect(await names(join(dir, 'merged'))).toEqual(await names(base))
    const adapted = await openModel(base, { threads: 1, adapter: join(dir, 'peft') })
    const merged = await openModel(join(dir, 'merged'), { threads: 1 })
    for (const own of [adapted, merged]) {
      const [[after]] = (await own.logprobs(groups)) as [[number[]]]
      after.forEach((x, t) => expect(x).toBeCloseTo(before[t]!, 3))
      await own.dispose()
    }
  })
})
