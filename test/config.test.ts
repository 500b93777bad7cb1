import { mkdtempSync, writeFileSync, mkdirSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { configKeys } from '../configs/keys.ts'
import { configToYaml, loadConfig, PACKAGE_ROOT, PRESETS, readConfig } from '../configs/load.ts'

const temporary = (): string => mkdtempSync(join(tmpdir(), 'visplay-config-'))

describe('layers', () => {
  test('defaults ← preset ← file ← set ← flag: the later wins, objects merge', () => {
    const file = join(temporary(), 'mine.yaml')
    writeFileSync(file, 'seed: 2\nsteps: 10\noptimizer: { lr: 3.0e-5 }\n')
    const flags = [
      { key: 'seed', value: 4, flag: '--seed 4' },
      { key: 'run', value: undefined, flag: '--run' },
    ]
    const config = loadConfig({ file, sets: ['seed=3', 'optimizer.warmup=5'], flags })
    expect(config).toMatchObject({ seed: 4, steps: 10, run: null, optimizer: { lr: 3e-5, warmup: 5, clip: 1 } })
  })

  test.each(PRESETS)('preset %s is valid', (preset) => {
    expect(loadConfig({ preset }).recipe).toBe('consensus')
  })

  test('the defaults are those of the recipe that was measured', () => {
    const { groups, optimizer, train, loss, generation } = loadConfig({ preset: null })
    expect(groups).toEqual({ images: 64, questions: 2, answers: 8, perTask: 1 })
    expect(optimizer).toMatchObject({ lr: 2e-5, betas: [0.9, 0.95], weightDecay: 0, clip: 1, warmup: 20 })
    expect([train.maxLag, loss.beta, generation.temperature]).toEqual([0, 0, 1])
  })

  test('a model brings its preset in visplay.json; others get that of published checkpoints', () => {
    const dir = temporary()
    const flags = [{ key: 'model.dir', value: dir, flag: '--model' }]
    expect(loadConfig({ flags }).prompts.questioner).toContain('<question>')
    writeFileSync(join(dir, 'visplay.json'), '{"preset": "tiny"}')
    expect(loadConfig({ flags }).prompts.questioner).toBe('ask')
    writeFileSync(join(dir, 'visplay.json'), '{}')
    expect(() => loadConfig({ flags })).toThrow('visplay.json does not name a preset')
  })

  test('paths count from where they are written', () => {
    const dir = temporary()
    mkdirSync(join(dir, 'sub'))
    writeFileSync(join(dir, 'sub', 'a.yaml'), 'images: { dir: pictures }')
    const config = loadConfig({
      preset: 'tiny',
      file: join(dir, 'sub', 'a.yaml'),
      sets: ['eval.file=held/out.jsonl'],
      cwd: dir,
    })
    expect(config.images.dir).toBe(join(dir, 'sub', 'pictures'))
    expect(config.eval.file).toBe(join(dir, 'held', 'out.jsonl'))
    expect(config.model.dir).toBe(join(PACKAGE_ROOT, 'models', 'tiny'))
  })
})

describe('errors name the key, the value, where it came from and what is allowed', () => {
  test.each([
    ['lr=3', 'unknown key "lr" (from --set lr=3) (did you mean "optimizer.lr"?)'],
    ['optimiser.lr=3', 'unknown key "optimiser" (from --set optimiser.lr=3) (did you mean "optimizer"?)'],
    ['groups.image=3', 'unknown key "groups.image" (from --set groups.image=3) (did you mean "groups.images"?)'],
    ['eval.qqqqq=3', 'unknown key "eval.qqqqq" (from --set eval.qqqqq=3); eval has file, clean, every, probe, samples'],
    ['steps=1.5', 'steps = 1.5 is not allowed (from --set steps=1.5); it takes an integer ≥ 0'],
    ['seed=', 'seed = null is not allowed (from --set seed=); it takes an integer ≥ 0'],
    [
      'optimizer.schedule=x',
      'optimizer.schedule = "x" is not allowed (from --set optimizer.schedule=x); it takes "constant", "linear" or "cosine"',
    ],
    [
      'bus.nats=foo',
      'bus.nats = "foo" is not allowed (from --set bus.nats=foo); it takes a text or null: a URL such as',
    ],
    ['prompts.reasoner=hi', 'it takes a text with {question} in it'],
    ['optimizer=3', 'optimizer = 3 is not allowed (from --set optimizer=3); it takes a section of keys'],
    ['optimizer.betas=[1]', 'optimizer.betas = [1] is not allowed'],
    ['recipe=mine', 'it takes "consensus", "silver-reference" or "majority-vote"'],
    ['recipes.consensus.alfa=1', 'unknown key "recipes.consensus.alfa"'],
    ['steps', '--set steps: write --set key=value'],
    ['steps=[', '--set steps=[: the value is not valid YAML'],
  ])('--set %s', (set, message) => {
    expect(() => loadConfig({ sets: [set] })).toThrow(message)
  })

  test('files and presets', () => {
    const file = join(temporary(), 'a.yaml')
    expect(() => loadConfig({ file })).toThrow(`the configuration file ${file} does not exist`)
    writeFileSync(file, '- 1')
    expect(() => loadConfig({ file })).toThrow('must hold "key: value" lines')
    writeFileSync(file, 'a: [')
    expect(() => loadConfig({ file })).toThrow('is not valid YAML')
    expect(() => loadConfig({ preset: 'tni' })).toThrow('unknown preset "tni" (did you mean "tiny"?)')
  })
})

test('config.yaml says everything and reads back the same', () => {
  const config = loadConfig({
    sets: ['prompts.reasoner="a: {question}\\n#b"', 'seed=7', 'recipes.consensus.alpha=0.5'],
  })
  const file = join(temporary(), 'config.yaml')
  writeFileSync(file, configToYaml(config))
  expect(readConfig(file)).toEqual(config)
  expect(configToYaml(config)).toContain('# Peak learning rate of AdamW [a number ≥ 0]')
})

test('every key has a description', () => {
  const silent = [...configKeys().values()].filter((k) => k.description === '' && !/^recipes\.[^.]+$/.test(k.key))
  expect(silent.map((k) => k.key)).toEqual([])
})
