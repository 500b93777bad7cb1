/** What can be learnt from a run afterwards, and while it goes on: replay, export, status. */
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { asyncBufferFromFile, parquetReadObjects } from 'hyparquet'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { Replay, REPLAYED, type ReplayRecord, type StepReplay } from '../actors/replay.ts'
import { createJudge } from '../actors/rewards/recipes/registry.ts'
import { embeddingSimilarity } from '../actors/rewards/similarity.ts'
import { PACKAGE_ROOT, readConfig } from '../configs/load.ts'
import { openEmbedder } from '../models/similarity/embedder.ts'
import { assembleOptions } from '../runners/evolve/assemble-options.ts'
import { exportCheckpoint } from '../runners/export/checkpoint.ts'
import { writeOnnxExport } from '../runners/export/onnx.ts'
import type { RunStatus } from '../runners/status/status.ts'
import { openTap } from '../runners/tap/open.ts'
import { readLog, type AnyRecord } from '../runners/tap/records.ts'
import { program, startProgram } from './support/program.ts'
import { SMALL_LEARNING as SMALL } from './support/small-run.ts'

let dir: string
let run: string
let records: AnyRecord[]
beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'visplay-tools-'))
  run = join(dir, 'run')
  const { code, stderr } = await program(['evolve', '--json', '--steps', '3', '--out', run, ...SMALL])
  expect(code, stderr).toBe(0)
  const { tap, close } = await openTap(undefined, run)
  const problems: string[] = []
  const options = {
    to: Infinity,
    signal: AbortSignal.timeout(60_000),
    onProblem: (_: number, p: string) => problems.push(p),
  }
  records = []
  for await (const record of readLog(tap, options)) records.push(record)
  await close()
  expect(problems).toEqual([])
})
afterAll(async () => rm(dir, { recursive: true, force: true, maxRetries: 20 }))

async function lines(...args: string[]): Promise<{ code: number | null; lines: Record<string, unknown>[] }> {
  const { code, stdout } = await program([...args, '--json'])
  const parsed = stdout.split('\n').slice(0, -1)
  return { code, lines: parsed.map((line) => JSON.parse(line) as Record<string, unknown>) }
}

/** One of the images of a run. */
async function pictureOf(folder: string): Promise<string> {
  const [name] = await readdir(join(folder, 'gallery'))
  return join(folder, 'gallery', name!)
}

const verdicts = () => records.filter((record) => record.event === 'verdict').length

describe('visplay replay', () => {
  test('finds the same verdicts and the same updates in the log alone', async () => {
    const { code, lines: said } = await lines('replay', run)
    const done = said.at(-1)
    expect(done).toMatchObject({ event: 'done', ok: true, steps: 3, sameUpdates: 3, same: verdicts(), others: 0 })
    expect(code).toBe(0)
    const hashes = said.filter((line) => line['event'] === 'step').map((line) => line['hash'])
    expect(new Set(hashes).size).toBe(3)
  })

  test('stops where it is told to, with the state of that time', async () => {
    const second = records.find((record) => record.event === 'step' && record.message.data.step === 2)!
    const { lines: said } = await lines('replay', run, '--to', String(second.seq))
    expect(said.find((line) => line['event'] === 'state')).toMatchObject({ seq: second.seq, version: 2, steps: 2 })
  })

  test('shows another recipe beside the one of the run, by name, by file and by knob', async () => {
    const file = join(dir, 'other.yaml')
    await writeFile(file, 'recipe: majority-vote\nrecipes: { majority-vote: { beta: 0 } }\n')
    const knob = ['--set', 'recipes.consensus.malformedQuestion=-7']
    for (const [args, now] of [
      [['--recipe', 'majority-vote'], 'majority-vote'],
      [['--recipe', file], 'majority-vote'],
      [knob, 'consensus'],
    ] as const) {
      const { code, lines: said } = await lines('replay', run, ...args)
      expect(code).toBe(0)
      const done = said.at(-1) as { rows: { metric: string; was: number; now: number }[] }
      expect(done).toMatchObject({ was: 'consensus', now, verdicts: verdicts() })
      expect(done.rows.map((row) => row.metric)).toContain('questioner/reward')
    }
    const { code, stderr } = await program(['replay', run, '--recipe', 'majority-vot'])
    expect([code, stderr]).toEqual([2, expect.stringContaining('majority-vote')])
  })

  test('notices a verdict that does not follow from its answers, and an update that does not follow from its verdicts', async () => {
    const config = readConfig(join(run, 'config.yaml'))
    const similarity = embeddingSimilarity(await openEmbedder())
    const replayed = async (alter: (record: ReplayRecord) => ReplayRecord): Promise<StepReplay[]> => {
      const recipe = createJudge(config.recipe, config.recipes[config.recipe])
      const options = { recipe, only: config.recipe, similarity, images: 4, assemble: assembleOptions(config) }
      const replay = new Replay(options)
      const steps: StepReplay[] = []
      for (const record of records.filter((r): r is ReplayRecord => (REPLAYED as string[]).includes(r.event))) {
        const step = await replay.apply(alter(structuredClone(record)))
        if (step) steps.push(step)
      }
      return steps
    }
    const honest = await replayed((record) => record)
    expect(honest.map((s) => [s.same, s.sameUpdate])).toEqual(honest.map((s) => [s.verdicts, true]))
    const group =
      honest.length > 0 && records.find((r) => r.event === 'step')!.message.data.groups.find((g) => g.includes('-q'))
    const forged = await replayed((record) => {
      const data = record.event === 'verdict' && record.id === group ? record.message.data.reasoner : null
      if (data) data.rewards[0] = 1 - data.rewards[0]!
      return record
    })
    expect(forged[0]).toMatchObject({ same: honest[0]!.same - 1, differing: [group], sameUpdate: false })
    expect(forged.slice(1)).toEqual(honest.slice(1))
  })
})

describe('visplay export', () => {
  test('--ndjson is the whole log, on stdout or as a file', async () => {
    const { code, stdout } = await program(['export', run, '--ndjson'])
    expect(code).toBe(0)
    const exported = stdout
      .split('\n')
      .slice(0, -1)
      .map((line) => JSON.parse(line) as { seq: number; data: unknown })
    expect(exported.map((r) => r.seq)).toEqual(records.map((r) => r.seq))
    expect(exported.map((r) => r.data)).toEqual(records.map((r) => r.message.data))
    const file = join(dir, 'run.ndjson')
    expect((await lines('export', run, '--ndjson', '--out', file)).lines).toEqual([
      { event: 'done', out: file, records: records.length },
    ])
    expect((await readdir(dir)).filter((name) => name.includes('partial'))).toEqual([])
  })

  test('--parquet has a row for every record, sample, figure and measurement', async () => {
    const out = join(dir, 'tables')
    const { code, lines: said } = await lines('export', run, '--parquet', '--out', out)
    expect(code).toBe(0)
    const read = async (name: string) =>
      parquetReadObjects({ file: await asyncBufferFromFile(join(out, `${name}.parquet`)) })
    const tables = {
      records: await read('records'),
      completions: await read('completions'),
      metrics: await read('metrics'),
      evals: await read('evals'),
    }
    const counts = Object.entries(tables).map(([name, rows]) => [name, rows.length])
    expect(said.at(-1)).toEqual({ event: 'done', out, rows: Object.fromEntries(counts) as unknown })
    expect(tables.records.length).toBe(records.length)
    const answers = records.filter((r) => r.event === 'answers').flatMap((r) => r.message.data.completions)
    const rewards = records.filter((r) => r.event === 'verdict').flatMap((r) => r.message.data.reasoner?.rewards ?? [])
    const reasoner = tables.completions.filter((row) => row['role'] === 'reasoner')
    expect(reasoner.map((row) => row['text']).toSorted()).toEqual(answers.map((a) => a.text).toSorted())
    expect(reasoner.map((row) => row['reward'] as number).toSorted()).toEqual(rewards.toSorted())
    expect(tables.completions.length - reasoner.length).toBe(verdicts())
    const steps = new Set(tables.metrics.map((row) => row['step']))
    expect([...steps]).toEqual([1, 2, 3])
  })

  test('does not replace what it has not made', async () => {
    const { code, stderr } = await program(['export', run, '--parquet', '--out', run])
    expect([code, stderr]).toEqual([2, expect.stringContaining('choose a folder')])
    const neither = await program(['export', run])
    expect([neither.code, neither.stderr]).toEqual([2, expect.stringContaining('--format parquet')])
  })
})

describe('visplay export of checkpoints', () => {
  async function logprobs(...model: string[]): Promise<{ text: string; logprobs: number[] }> {
    const prompt = 'what is in the image? Answer with one or two words.'
    const { stdout, stderr } = await program([
      'generate',
      '--json',
      ...model,
      '--image',
      await pictureOf(run),
      '--prompt',
      prompt,
    ])
    expect(stderr).not.toContain('visplay:')
    return JSON.parse(stdout) as { text: string; logprobs: number[] }
  }

  test('peft and merged give the same model, and another one than the base', async () => {
    const lora = join(dir, 'lora')
    const args = ['--steps', '3', '--set', 'model.train=lora', '--set', 'optimizer.lr=1e-2']
    const { code, stderr } = await program(['evolve', '--json', '--out', lora, ...SMALL, ...args])
    expect(code, stderr).toBe(0)
    const [peft, merged] = [join(dir, 'peft'), join(dir, 'merged')]
    expect((await lines('export', lora, '--format', 'peft', '--out', peft)).lines.at(-1)).toMatchObject({ version: 3 })
    expect((await lines('export', lora, '--format', 'merged', '--out', merged)).lines.at(-1)).toMatchObject({
      version: 3,
    })
    const base = join(PACKAGE_ROOT, 'models', 'tiny')
    const [plain, adapted, whole] = [
      await logprobs('--model', base),
      await logprobs('--model', base, '--adapter', peft),
      await logprobs('--model', merged),
    ]
    expect(adapted.text).toBe(whole.text)
    adapted.logprobs.forEach((logprob, t) => expect(whole.logprobs[t]).toBeCloseTo(logprob, 4))
    expect(Math.abs(adapted.logprobs[0]! - plain.logprobs[0]!)).toBeGreaterThan(1e-3)
    const onnx = join(dir, 'onnx')
    // The exported graphs are tested in export-onnx.test.ts; here, that the weights are those of the version.
    const fromMerged = join(dir, 'onnx-of-merged')
    const signal = new AbortController().signal
    const { tap, close } = await openTap(undefined, lora)
    const config = readConfig(join(lora, 'config.yaml'))
    const done = await exportCheckpoint(tap, { config, format: 'onnx', version: null, out: () => onnx, signal })
    await close()
    expect(done).toEqual({ dir: onnx, version: 3 })
    await writeOnnxExport(fromMerged, merged, { lora: null, weights: {} }, { signal })
    for (const file of await readdir(join(onnx, 'onnx')))
      expect(await readFile(join(onnx, 'onnx', file))).toEqual(await readFile(join(fromMerged, 'onnx', file)))
    const zero = join(dir, 'zero')
    await lines('export', lora, '--format', 'merged', '--weights', '0', '--out', zero)
    const start = await logprobs('--model', zero)
    start.logprobs.forEach((logprob, t) => expect(plain.logprobs[t]).toBeCloseTo(logprob, 5))
  })

  test('what cannot be had is refused in one line', async () => {
    for (const [args, reason] of [
      [['--format', 'peft'], 'use --format merged'],
      [['--format', 'merged', '--weights', '77'], 'has no version 77; it has 0 to 3'],
      [['--format', 'merged', '--out', run], 'choose a folder'],
    ] as const) {
      const { code, stderr } = await program(['export', run, ...args])
      expect([code, stderr]).toEqual([2, expect.stringContaining(reason)])
      expect(stderr.trim().split('\n')).toHaveLength(1)
    }
  })
})

describe('visplay status', () => {
  test('of a run that goes on: every actor, the queues, the version', async () => {
    const out = join(dir, 'live')
    const live = startProgram(['evolve', '--json', '--steps', '100000', '--out', out, ...SMALL])
    await live.said('step')
    const { code, lines: said } = await lines('status', out)
    const status = said[0] as unknown as RunStatus
    live.kill('SIGINT')
    expect((await live.ended).code).toBe(130)
    expect(code).toBe(0)
    const roles = [
      'evaluator',
      'judge',
      'model',
      'optimizer',
      'questioner',
      'reasoner',
      'recorder',
      'source',
      'supervisor',
    ]
    expect(status.actors.map(({ actor }) => actor.split('.')[0])).toEqual(roles)
    expect(status.version).toBeGreaterThan(0)
    expect(status.epoch).toBe(1)
    const kinds = [
      'judge.groups',
      'model.generate',
      'model.gradient',
      'model.logprobs',
      'questioner.images',
      'reasoner.questions',
    ]
    expect(status.queues.map((queue) => queue.kind)).toEqual(kinds)
    const [device] = status.devices
    expect(device!.actor).toMatch(/^model\./)
    expect(device!.sampledPerSecond).toBeGreaterThan(0)
    expect(device!.trainedPerSecond).toBeGreaterThan(0)
  })

  test('of a run that has ended: nobody works on it', async () => {
    const { stdout } = await program(['status', run])
    expect(stdout).toContain('version 3')
    expect(stdout).toContain('nobody works on it')
  })
})
