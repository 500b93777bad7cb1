import { execFile, spawn } from 'node:child_process'
import { mkdtempSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { afterEach, describe, expect, test, vi } from 'vitest'
import { PACKAGE_ROOT } from '../configs/load.ts'
import { fail, oneLine } from '../runners/cli/fail.ts'
import type { EvolveEvent, StepEvent } from '../runners/cli/events.ts'
import { clock, createProgress, stepLine } from '../runners/cli/progress.ts'

const BIN = join(PACKAGE_ROOT, 'runners', 'bin.mjs')
const elsewhere = mkdtempSync(join(tmpdir(), 'visplay-cli-'))

interface Ended {
  readonly code: number
  readonly stdout: string
  readonly stderr: string
}
async function visplay(...args: string[]): Promise<Ended> {
  try {
    const { stdout, stderr } = await promisify(execFile)(process.execPath, [BIN, ...args], { cwd: elsewhere })
    return { code: 0, stdout, stderr }
  } catch (error) {
    const { code, stdout, stderr } = error as Ended
    return { code, stdout, stderr }
  }
}

describe('the program, called from another folder', () => {
  test.concurrent('--help names every command', async ({ expect }) => {
    const { code, stdout } = await visplay('--help')
    expect(code).toBe(0)
    for (const name of [
      'evolve',
      'generate',
      'serve',
      'eval',
      'pretrain',
      'verify',
      'bench',
      'tap',
      'report',
      'doctor',
    ]) {
      expect(stdout).toContain(`  ${name} `)
    }
  })

  test.concurrent.for([
    'evolve',
    'generate',
    'serve',
    'eval',
    'pretrain',
    'verify',
    'bench',
    'tap',
    'report',
    'doctor',
  ])('%s --help has an example and --json', async (name, { expect }) => {
    const { code, stdout } = await visplay(name, '--help')
    expect(code).toBe(0)
    expect(stdout).toContain(`$ npx visplay ${name}`)
    expect(stdout).toContain('--json')
  })

  test.concurrent.for<[string[], string]>([
    [['evolv'], `unknown command 'evolv' (Did you mean evolve?)`],
    [['evolve', '--step', '3'], `unknown option '--step' (Did you mean --steps?)`],
    [['evolve', '--steps', 'x'], 'steps = "x" is not allowed (from --steps x); it takes an integer ≥ 0'],
    [['evolve', '--resume', 'gone'], 'there is no run "gone"; there are no runs in'],
    [['generate', '--model', 'm'], "required option '--prompt <text>' not specified"],
    [['generate', '--model', 'm', '--prompt', 'p', '--temperature', '-1'], 'It takes a number ≥ 0.'],
  ])('a wrong call %j ends with 2 and one line on stderr', async ([args, message], { expect }) => {
    const { code, stdout, stderr } = await visplay(...args)
    expect([code, stdout]).toEqual([2, ''])
    expect(stderr).toMatch(/^visplay: [^\n]*\n$/)
    expect(stderr).toContain(message)
  })

  test.concurrent('a device that is not there ends with one line that names it', async ({ expect }) => {
    const device = process.platform === 'win32' ? 'coreml' : 'dml'
    const model = join(PACKAGE_ROOT, 'models', 'tiny')
    const { code, stderr } = await visplay('generate', '--model', model, '--prompt', 'hi', '--device', device)
    expect(code).toBe(1)
    expect(stderr).toMatch(
      new RegExp(`^visplay: the device "${device}" cannot be used here \\(.*\\); choose the device cpu\n$`),
    )
  })

  test.concurrent('a missing image ends with 1 and one line that names it', async ({ expect }) => {
    const { code, stdout, stderr } = await visplay(
      'generate',
      '--model',
      'm',
      '--prompt',
      'p',
      '--image',
      'none.png',
      '--json',
    )
    expect([code, stdout]).toEqual([1, ''])
    expect(stderr).toBe(`visplay: the image ${join(elsewhere, 'none.png')} does not exist\n`)
  })

  test.concurrent('--verbose adds the stack', async ({ expect }) => {
    const { stderr } = await visplay('eval', '--model', 'm', '--data', 'none.jsonl', '--verbose')
    expect(stderr).toMatch(/^visplay: the held-out file .*none\.jsonl does not exist\nEvalSetError: .*\n\s+at /)
  })

  test.concurrent('--print-config prints every setting', async ({ expect }) => {
    const { code, stdout } = await visplay('evolve', '--print-config', '--seed', '5')
    expect(code).toBe(0)
    expect(stdout).toContain('\nseed: 5\n')
  })
})

describe('held-out files', () => {
  test.concurrent.for([
    ['', 'is empty'],
    ['{"image":"a.png"', 'held.jsonl:1 is not JSON'],
    ['\n{"image":"a.png","question":"q"}', 'held.jsonl:2: there is neither "answer" nor "answers"'],
    ['{"image":"a.png","question":3,"answer":"x"}', 'held.jsonl:1: question: Invalid input'],
  ])('%j is refused with the line', async ([text, message], { expect }) => {
    const { readEvalSet } = await import('../actors/eval-set.ts')
    const file = join(mkdtempSync(join(tmpdir(), 'visplay-eval-')), 'held.jsonl')
    writeFileSync(file, text!)
    await expect(readEvalSet(file)).rejects.toThrow(message)
  })
})

describe('Ctrl-C', () => {
  const script = (body: string): string => `
    import { register } from 'tsx/esm/api'
    register()
    const { interruptible } = await import(${JSON.stringify(join(PACKAGE_ROOT, 'runners/cli/interrupt.ts'))})
    ${body}`
  const start = (body: string) =>
    spawn(process.execPath, ['--input-type=module', '-e', script(body)], {
      cwd: PACKAGE_ROOT,
      stdio: ['ignore', 'pipe', 'pipe'],
    })
  const ended = (child: ReturnType<typeof start>) =>
    new Promise<number | null>((resolve) => child.once('exit', resolve))
  const said = (child: ReturnType<typeof start>, what: string) =>
    new Promise<void>((resolve) =>
      child.stdout.on('data', (data: Buffer) => data.toString().includes(what) && resolve()),
    )

  test('the first one stops in order, with exit code 130', async () => {
    const child = start(`await interruptible(async (signal) => {
      console.log('working')
      await new Promise((resolve) => { const t = setTimeout(() => {}, 1e6); signal.onabort = () => { clearTimeout(t); resolve() } })
      console.log('saved')
    })`)
    await said(child, 'working')
    const saved = said(child, 'saved')
    child.kill('SIGINT')
    expect(await ended(child)).toBe(130)
    await saved
  })

  test('the second one quits at once', async () => {
    const child = start(`await interruptible(async () => {
      console.log('working')
      await new Promise(() => setInterval(() => {}, 1000))
    })`)
    await said(child, 'working')
    child.kill('SIGINT')
    await new Promise((resolve) => setTimeout(resolve, 500))
    child.kill('SIGINT')
    expect(await ended(child)).toBe(130)
  })
})

describe('errors in one line', () => {
  afterEach(() => {
    process.exitCode = undefined
    vi.restoreAllMocks()
  })

  test('line breaks go, system codes get words and a remedy', () => {
    expect(oneLine(new Error('a\n  b'))).toBe('a b')
    const full = Object.assign(new Error('ENOSPC: no space left on device, write'), { code: 'ENOSPC', path: '/x/y' })
    expect(oneLine(full)).toBe('the disk is full (writing /x/y); free some space or choose another folder with --out')
  })

  test('the exit code is 2 for a wrong configuration and 1 otherwise', async () => {
    vi.spyOn(process.stderr, 'write').mockReturnValue(true)
    const { ConfigError } = await import('../configs/errors.ts')
    fail(new ConfigError('x'), false)
    expect(process.exitCode).toBe(2)
    fail(new Error('x'), false)
    expect(process.exitCode).toBe(1)
  })
})

describe('progress', () => {
  const step = (n: number): StepEvent => ({
    event: 'step',
    step: n,
    steps: 60,
    version: n,
    seconds: 5,
    metrics: {
      'questioner/reward': 0.314,
      'reasoner/reward': -0.05,
      'reasoner/agreement': 0.617,
      'filter/keep_rate': 0.4,
      lag: 0,
      tokens_per_second: 8123,
    },
  })
  const sample: EvolveEvent = {
    event: 'sample',
    step: 1,
    image: 'a.png',
    question: 'what color\u001b[2J is it?',
    silver: 'red',
    answers: [
      { text: 'red', count: 7 },
      { text: null, count: 1 },
    ],
    agreement: 0.875,
  }

  test('a step in one line', () => {
    expect(stepLine(step(12), 5)).toBe(
      'step 12/60  Q +0.31  R -0.05  agree 62 %  kept 40 %  lag 0  8.1k tok/s  ETA 4:00',
    )
    expect(stepLine({ ...step(60), metrics: {} }, 5)).toBe('step 60/60')
    expect([clock(0.4), clock(59.6), clock(3725)]).toEqual(['0:00', '1:00', '1:02:05'])
  })

  test('without a terminal: plain lines, control characters of a model removed', () => {
    let text = ''
    const progress = createProgress({ write: (s) => (text += s), columns: undefined })
    for (const event of [step(1), sample, step(2), sample]) progress.show(event)
    expect(text).not.toContain('\u001b')
    expect(text.split('\n').filter((line) => line.startsWith('step'))).toHaveLength(2)
    expect(text).toContain('  a.png: what color [2J is it? [silver: red]\n    red ×7 · (no answer) ×1  (88 % agree)\n')
    expect(text.match(/a\.png/g)).toHaveLength(1)
  })

  test('on a terminal the live block is redrawn in place and removed at the end', () => {
    let text = ''
    const progress = createProgress({ write: (s) => (text += s), columns: 60 })
    progress.show(step(1))
    progress.show(sample)
    const before = text.length
    progress.show({ event: 'alarm', step: 2, name: 'lock-in', message: 'kept 5 %', value: 0.05 })
    expect(text.slice(before)).toMatch(/^\u001b\[4A\u001b\[0JALARM lock-in at step 2: kept 5 %\nstep/)
    for (const line of text.split('\n')) expect(line.replace(/^\u001b.*J/, '').length).toBeLessThanOrEqual(60)
    progress.close()
    expect(text.endsWith('\u001b[4A\u001b[0J')).toBe(true)
  })

  test('the end has a table of before and after', () => {
    let text = ''
    const progress = createProgress({ write: (s) => (text += s), columns: undefined })
    const before = { mean1: 0.582, greedy: 0.629, maj: 0.62 }
    const after = { mean1: 0.665, greedy: 0.67, maj: 0.61 }
    progress.show({
      event: 'done',
      run: 'a',
      version: 60,
      before,
      after,
      clean: null,
      steps: 60,
      seconds: 312,
      out: '/r/a',
    })
    expect(text).toContain('done: 60 steps, version 60, 5:12')
    expect(text).toMatch(
      /held-out\s+mean@1\s+greedy\s+maj\n\s+before\s+58\.2 %\s+62\.9 %\s+62\.0 %\n\s+after\s+66\.5 %/,
    )
    expect(text).toMatch(/gain\s+\+8\.3\s+\+4\.1\s+−1\.0\n/)
  })
})
