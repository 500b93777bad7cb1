/** The main job as a user runs it: the shipped model, a NATS server, every actor. Small sizes. */
import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { loadConfig } from '../configs/load.ts'
import { loadModel } from '../models/vlm/load.ts'
import { evolve, type RunConfig } from '../runners/evolve/evolve.ts'
import type { EvolveEvent } from '../runners/cli/events.ts'

let dir: string
beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'visplay-evolve-'))
})
afterAll(() => rm(dir, { recursive: true, force: true }))

const SMALL = [
  'groups.images=4',
  'groups.answers=4',
  'world.images=10',
  'world.evalImages=3',
  'eval.every=1',
  'eval.probe=5',
  'eval.samples=2',
  'optimizer.warmup=0',
  'optimizer.lr=1e-3',
]

function configOf(name: string, sets: readonly string[] = []): RunConfig {
  const config = loadConfig({ sets: [...SMALL, 'steps=3', ...sets] })
  return { ...config, run: name, out: join(dir, name) }
}

interface Played {
  readonly events: EvolveEvent[]
  readonly done: Extract<EvolveEvent, { event: 'done' }>
}

async function play(config: RunConfig): Promise<Played> {
  const events: EvolveEvent[] = []
  const show = (event: EvolveEvent) => events.push(event)
  return { events, done: await evolve(config, { show, signal: AbortSignal.timeout(100_000), resume: false }) }
}

describe('evolve', () => {
  test('from rendered images to a better checkpoint with its proof', async () => {
    const config = configOf('whole')
    const { events, done } = await play(config)
    expect(done).toMatchObject({ run: 'whole', version: 3, steps: 3, out: config.out })
    for (const accuracy of [done.before, done.after, done.clean?.before, done.clean?.after]) {
      expect(accuracy).toMatchObject({ mean1: expect.any(Number), greedy: expect.any(Number), maj: expect.any(Number) })
    }
    expect(events.filter((e) => e.event === 'step').map((e) => e.step)).toEqual([1, 2, 3])
    expect(events.filter((e) => e.event === 'eval' && e.probe).map((e) => e.event === 'eval' && e.version)).toEqual(
      expect.arrayContaining([0, 3]),
    )
    expect(events.at(-1)).toEqual(done)
    expect(events.filter((e) => e.event === 'note')).toEqual([])
    const files = await readdir(config.out)
    const wanted = ['checkpoints', 'config.yaml', 'gallery', 'gallery.jsonl', 'metrics.jsonl', 'nats', 'report.html']
    expect(files).toEqual(expect.arrayContaining(wanted))
    const model = await loadModel(join(config.out, 'checkpoints', 'final'), { threads: 1 })
    expect(model.family).toBeTruthy()
    await model.dispose()
  })

  test('images alone in their tasks give the same model as all of a step in one, bit by bit', async () => {
    expect(configOf('together').groups.perTask).toBeGreaterThanOrEqual(4)
    const without = ['world.evalImages=1', 'eval.every=100']
    await play(configOf('together', without))
    await play(configOf('alone', [...without, 'groups.perTask=1']))
    const weights = (run: string) => readFile(join(dir, run, 'checkpoints', 'final', 'model.safetensors'))
    expect((await weights('alone')).equals(await weights('together'))).toBe(true)
  })

  test('a LoRA run leaves a PEFT adapter; an alarm ends it at the best version when asked', async () => {
    const alarm = ['stopOnAlarm=true', 'alarms.keptLow=1', 'alarms.window=1', 'model.train=lora', 'steps=6']
    const { events, done } = await play(configOf('lora', alarm))
    expect(events.filter((e) => e.event === 'alarm').length).toBeGreaterThan(0)
    expect(done.version).toBeLessThan(6)
    expect(done.steps).toBeGreaterThanOrEqual(done.version)
    expect(done.after).not.toBeNull()
    const files = await readdir(join(dir, 'lora', 'checkpoints', 'final'))
    expect(files.toSorted()).toEqual(['adapter_config.json', 'adapter_model.safetensors'])
  })
})
