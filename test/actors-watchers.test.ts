/** Actors that watch a run: Evaluator, Recorder, Supervisor; and the folder of images. */
import { mkdir, mkdtemp, readFile, rm, symlink, utimes, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import sharp from 'sharp'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { batchMetrics } from '../actors/batch-metrics.ts'
import { evaluator } from '../actors/evaluator.ts'
import { recorder, type RecorderRecord } from '../actors/recorder.ts'
import type { RunActor } from '../actors/run-actor.ts'
import { galleryLineSchema, metricsLineSchema } from '../actors/run-files.ts'
import { supervisor } from '../actors/supervisor.ts'
import { deadId } from '../bus/subjects.ts'
import { NoImagesError, scanImages } from '../runners/evolve/images.ts'
import { World } from './support/actors-world.ts'

let dir: string
let world: World
beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'visplay-watchers-'))
})
afterEach(async () => {
  await world?.stop()
  await rm(dir, { recursive: true, force: true })
})
const signal = () => AbortSignal.timeout(20_000)

describe('Evaluator', () => {
  test('measures the base and the last version whole, others by a probe, each once', async () => {
    await writeFile(join(dir, 'a.png'), 'picture')
    const questions = Array.from({ length: 150 }, (_, i) => ({
      image: join(dir, 'a.png'),
      question: `what is ${i}?`,
      accepted: ['red', 'crimson'],
      type: i % 2 === 0 ? 'color' : 'other',
    }))
    const sets = [
      { name: 'held-out', questions },
      { name: 'clean', questions: questions.slice(0, 10) },
    ]
    world = new World({ steps: 3 }).start()
    const options = { sets, every: 2, probe: 20, samples: 4, steps: 3, prompt: '{question}', maxNewTokens: 8, seed: 1 }
    const start = (name: string) => evaluator(world.ports('evaluator', world.net.connect(name)), options)
    const actor = start('evaluator.1')
    const bus = world.net.connect('test.1')
    const found = async (id: string) => (await bus.await('eval', id, signal())).message.data
    const [base, probe0, clean0, probe2, last] = await Promise.all(
      ['v0-held-out', 'v0-held-out-probe', 'v0-clean', 'v2-held-out-probe', 'v3-clean'].map(found),
    )
    expect(base).toMatchObject({ weights: 0, set: 'held-out', n: 150, probe: false })
    expect(Object.keys(base!.byType)).toEqual(['color', 'other'])
    expect([probe0!.n, clean0!.n, probe2!.n, last!.n]).toEqual([20, 10, 20, 10])
    for (const { mean1, greedy, maj } of [base!, probe2!]) {
      for (const share of [mean1, greedy, maj]) expect(share).toBeGreaterThanOrEqual(0)
      expect(mean1).toBeGreaterThan(0.1)
    }
    await found('v3-held-out')
    expect(await bus.find('eval', 'v2-held-out')).toBeNull()
    expect(await bus.find('eval', 'v1-held-out-probe')).toBeNull()
    await actor.stop()

    const generated = world.model.generated
    const again = start('evaluator.2')
    again.measure(2)
    expect(await found('v2-held-out')).toMatchObject({ weights: 2, n: 150, probe: false })
    expect((await found('v2-clean')).n).toBe(10)
    // 150 + 10 questions, greedy and samples: what was measured before is not measured again.
    expect(world.model.generated - generated).toBe(2 * 160)
    await again.stop()
  })
})

describe('Recorder', () => {
  const read = async (name: string) =>
    (await readFile(join(dir, name), 'utf8'))
      .split('\n')
      .filter((line) => line !== '')
      .map((line) => JSON.parse(line) as unknown)

  test('writes the files of the run from its log, and the same ones again after a crash', async () => {
    world = new World({ steps: 3 }).start()
    const seen: RecorderRecord[] = []
    const start = (name: string) =>
      recorder(world.ports('recorder', world.net.connect(name)), {
        dir,
        alarms: { keptLow: 1, window: 1 },
        images: 4,
        galleryPerStep: 3,
        onRecord: (record) => seen.push(record),
      })
    const first = start('recorder.1')
    await world.finished()
    const bus = world.net.connect('test.1')
    const last = await bus.await('step', 's3', signal())
    await first.written(last.seq)
    await first.stop()
    const metrics = (await read('metrics.jsonl')).map((line) => metricsLineSchema.parse(line))
    expect(metrics.filter((m) => m.event === 'step').map((m) => m.step)).toEqual([1, 2, 3])
    const gallery = (await read('gallery.jsonl')).map((line) => galleryLineSchema.parse(line))
    expect(gallery.map((line) => line.step)).toEqual([1, 1, 1, 2, 2, 2, 3, 3, 3])
    for (const { picture } of gallery) expect(await readFile(join(dir, picture), 'utf8')).toMatch(/^image \d$/)

    // A crash left half a line.
    await writeFile(join(dir, 'metrics.jsonl'), '{"event":"st', { flag: 'a' })
    const second = start('recorder.2')
    await second.written(last.seq)
    await second.stop()
    expect((await read('gallery.jsonl')).map((line) => galleryLineSchema.parse(line))).toEqual(gallery)
    const steps = (await read('metrics.jsonl'))
      .map((line) => metricsLineSchema.parse(line))
      .filter((m) => m.event === 'step')
    expect(steps).toEqual(metrics.filter((m) => m.event === 'step'))
    expect(seen.filter((r) => r.event === 'step')).toHaveLength(6)
  })

  test('raises alarms into the log, once', async () => {
    world = new World({ steps: 2, batchMetrics: true }).start()
    const options = { dir, alarms: { keptLow: 1, window: 1 }, images: 4 }
    for (const name of ['recorder.1', 'recorder.2']) {
      const actor = recorder(world.ports('recorder', world.net.connect(name)), options)
      await world.finished()
      const alarm = await world.net.connect(`test.${name.at(-1)}`).await('alarm', 'few-kept-groups-s1', signal())
      expect(alarm.message.data).toMatchObject({ step: 1, name: 'few-kept-groups' })
      await actor.written(alarm.seq)
      await actor.stop()
    }
    const lines = (await read('metrics.jsonl')) as { event: string; name?: string }[]
    expect(lines.filter((l) => l.event === 'alarm' && l.name === 'few-kept-groups')).toHaveLength(1)
  })
})

describe('Supervisor', () => {
  test('starts a broken actor again, later each time, and leaves a finished one', async () => {
    world = new World()
    const starts: Record<string, number> = { fragile: 0, calm: 0 }
    const actor = (done: Promise<void>): RunActor => ({
      role: 'x',
      state: () => '',
      done,
      send: () => {},
      stop: () => Promise.resolve(),
    })
    const supervising = supervisor(world.ports('supervisor', world.net.connect('supervisor.1')), {
      fragile: () => actor(++starts['fragile']! < 3 ? Promise.reject(new Error('broke')) : Promise.resolve()),
      calm: () => actor(Promise.resolve(void starts['calm']!++)),
    })
    await expect.poll(() => starts['fragile'], { timeout: 10_000 }).toBe(3)
    expect(starts['calm']).toBe(1)
    expect(world.warnings.filter((w) => w.includes('fragile broke and is started again'))).toHaveLength(2)
    await supervising.stop()
  })

  test('a given-up task becomes an alarm', async () => {
    world = new World()
    const bus = world.net.connect('test.1')
    const supervising = supervisor(world.ports('supervisor', world.net.connect('supervisor.1')), {})
    const id = deadId('judge.groups', 's4-i1-q0')
    await bus.append('dead', id, { kind: 'judge.groups', id: 's4-i1-q0', cause: 'no such recipe', deliveries: 5 })
    const { data } = (await bus.await('alarm', id, signal())).message
    expect(data).toMatchObject({ step: 4, name: 'dead-task', value: 5 })
    expect(data.message).toContain('no such recipe')
    await supervising.stop()
  })
})

describe('batchMetrics', () => {
  test('are relative to the first step of the run', async () => {
    world = new World({ steps: 2, batchMetrics: true }).start()
    await world.finished()
    const bus = world.net.connect('test.1')
    const { metrics } = (await bus.find('step', 's2'))!.message.data
    expect(metrics['questioner/types']).toBeGreaterThan(0)
    expect(metrics['reasoner/reward']).not.toBeNull()
    expect(metrics['grad_norm']).not.toBeUndefined()
    expect(metrics['lag']).toBe(0)
    const fresh = batchMetrics(bus)
    const empty = { step: 2, expects: 0, images: new Map(), questions: new Map(), wellFormed: 0 }
    const none = { answers: new Map(), verdicts: new Map(), dead: new Map() }
    expect((await fresh({ ...empty, ...none }))['questioner/types']).toBe(0)
  })
})

describe('scanImages', () => {
  const options = { maxPixels: 10_000, limit: null, seed: 1, signal: signal() }
  const picture = (format: 'png' | 'jpeg' | 'webp' | 'gif' | 'tiff' | 'avif', size = 32) =>
    sharp({ create: { width: size, height: size, channels: 3, background: 'red' } })
      .toFormat(format)
      .toBuffer()

  test('finds every kind, deeply, and names what cannot be used', async () => {
    await mkdir(join(dir, 'deep', 'er'), { recursive: true })
    for (const format of ['png', 'jpeg', 'webp', 'gif', 'tiff', 'avif'] as const) {
      await writeFile(join(dir, 'deep', 'er', `x.${format}`), await picture(format))
    }
    await writeFile(join(dir, 'no-extension'), await picture('png'))
    await writeFile(join(dir, 'drawing.svg'), '<svg xmlns="http://www.w3.org/2000/svg" width="8" height="8"/>')
    await writeFile(join(dir, 'empty.png'), '')
    await writeFile(join(dir, 'notes.txt'), 'hello')
    await writeFile(join(dir, 'giant.png'), await picture('png', 101))
    const noisy = await sharp({
      create: {
        width: 64,
        height: 64,
        channels: 3,
        background: 'red',
        noise: { type: 'gaussian', mean: 128, sigma: 60 },
      },
    })
      .jpeg()
      .toBuffer()
    await writeFile(join(dir, 'cut.jpg'), noisy.subarray(0, noisy.length / 2))
    await symlink(join(dir, 'nowhere.png'), join(dir, 'dangling.png'))
    const { images, skipped } = await scanImages(dir, options)
    expect(images.map((i) => i.name).toSorted()).toEqual(
      ['no-extension', ...['avif', 'gif', 'jpeg', 'png', 'tiff', 'webp'].map((f) => `deep/er/x.${f}`)].toSorted(),
    )
    const reasons = Object.fromEntries(skipped.map(({ file, reason }) => [file, reason]))
    expect(Object.keys(reasons).toSorted()).toEqual([
      'cut.jpg',
      'dangling.png',
      'drawing.svg',
      'empty.png',
      'giant.png',
      'notes.txt',
    ])
    expect(reasons['empty.png']).toBe('the file is empty')
    expect(reasons['drawing.svg']).toContain('convert it to PNG')
    expect(reasons['giant.png']).toContain('101×101')
    expect(reasons['dangling.png']).toBe('does not exist')
    expect((await images[0]!.read()).length).toBeGreaterThan(0)
  })

  test('an image that was damaged since is refused when it is read', async () => {
    await writeFile(join(dir, 'a.png'), await picture('png'))
    const { images } = await scanImages(dir, options)
    await writeFile(join(dir, 'a.png'), 'gone')
    await expect(images[0]!.read()).rejects.toThrow()
  })

  test('an image that the scan has decoded is decoded again only when its file has changed', async () => {
    const file = join(dir, 'a.png')
    const bytes = await picture('png')
    await writeFile(file, bytes)
    await utimes(file, 1000, 1000)
    const { images } = await scanImages(dir, options)
    const broken = Buffer.from(bytes)
    broken.fill(0, bytes.length / 2)
    await writeFile(file, broken)
    await expect(images[0]!.read()).rejects.toThrow()
    // Of the same size, time and place: as it was, as far as anybody can tell without decoding it.
    await utimes(file, 1000, 1000)
    expect(await images[0]!.read()).toEqual(broken)
  })

  test('a limit chooses by the seed', async () => {
    for (let i = 0; i < 12; i++) await writeFile(join(dir, `${i}.png`), await picture('png'))
    const names = async (seed: number) =>
      (await scanImages(dir, { ...options, limit: 4, seed })).images.map((i) => i.name)
    expect(await names(1)).toHaveLength(4)
    expect(await names(1)).toEqual(await names(1))
    expect(await names(1)).not.toEqual(await names(2))
  })

  test('no image at all, or no folder, is one clear line', async () => {
    await expect(scanImages(dir, options)).rejects.toThrow(NoImagesError)
    await expect(scanImages(dir, options)).rejects.toThrow(/there are no images in .*: it has no files/)
    await expect(scanImages(join(dir, 'missing'), options)).rejects.toThrow(/cannot be read: does not exist/)
  })
})
