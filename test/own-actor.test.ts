/** Actors of the user's in a run that goes on: real processes, real files, a real server. */
import { spawn } from 'node:child_process'
import { execFileSync } from 'node:child_process'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { EventData } from '../bus/messages.ts'
import { within } from '../bus/within.ts'
import { credentialsFile } from '../bus/nats/credentials.ts'
import { PACKAGE_ROOT } from '../configs/load.ts'
import type { EvolveEvent } from '../runners/cli/events.ts'
import { liveServer } from '../runners/actor/live-server.ts'
import { openTap } from '../runners/tap/open.ts'
import { decodeHeard } from '../runners/tap/decode.ts'
import { readLog } from '../runners/tap/records.ts'
import { program, startProgram, type Program } from './support/program.ts'
import { SMALL } from './support/small-run.ts'

/** A whole judge: what a user writes. */
const judgeFile = (name: string) => `
import { countVotes, defineJudge } from 'visplay/actor'

export default defineJudge({
  name: '${name}',
  version: '7',
  async judge({ silver, answers, malformed }) {
    if (malformed !== null) return { questioner: { reward: -1, parts: {} }, reasoner: null }
    const { agreement, majority, share } = countVotes(answers, silver)
    const rewards: number[] = answers.map((answer) => Number(answer === majority))
    return {
      questioner: { reward: 1 - share, parts: {} },
      reasoner: { rewards, keep: true, dropped: null, agreement, majority, share },
    }
  },
})
`

let dir: string
let run: string
let evolving: Program
beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'visplay-own-'))
  run = join(dir, 'run')
  evolving = startProgram(['evolve', '--json', '--steps', '100000', '--out', run, ...SMALL])
  await evolving.said('step')
})
afterAll(async () => {
  evolving?.kill('SIGKILL')
  await evolving?.ended
  await rm(dir, { recursive: true, force: true, maxRetries: 20 })
})

async function write(name: string, text: string): Promise<string> {
  await writeFile(join(dir, name), text)
  return join(dir, name)
}

const inject = (file: string): Program => startProgram(['actor', file, '--run', run, '--json'])

/** Resolves when a message that passes is said. */
async function hear<T>(filter: string, passes: (data: T) => boolean): Promise<void> {
  const { tap, close } = await openTap(undefined, run)
  const listen = async (signal: AbortSignal) => {
    for await (const heard of tap.listen({ filter, since: null, follow: true, signal })) {
      const line = await decodeHeard(heard, tap)
      if ('data' in line && passes(line.data as T)) return true
    }
    return false
  }
  const heard = await within(60_000, listen)
  await close()
  expect(heard, `heard ${filter} in time`).toBe(true)
}

const judgedBy = (name: string) => hear<EventData<'verdict'>>('log.verdict.*', ({ judge }) => judge.name === name)

async function leave(actor: Program): Promise<void> {
  actor.kill('SIGINT')
  expect((await actor.ended).code).toBe(130)
}

/** A Python that has nats-py with its keys, if this machine has one. */
const python = [process.env['PYTHON'] ?? 'python3'].find((name) => {
  try {
    execFileSync(name, ['-c', 'import nats, nkeys'], { stdio: 'ignore' })
    return true
  } catch {
    return false
  }
})

describe('visplay actor', () => {
  test('a judge replaces the one of the run, another replaces it, and each goes back to the one before', async () => {
    const first = inject(await write('first.ts', judgeFile('first')))
    await judgedBy('first')
    const second = inject(await write('second.ts', judgeFile('second')))
    await judgedBy('second')
    await leave(second)
    await judgedBy('first')
    await leave(first)
    await judgedBy('consensus')
  })

  test.skipIf(python === undefined)('a judge in Python needs the published schemas only', async () => {
    const { access, run: name } = await liveServer(run)
    const script = join(PACKAGE_ROOT, 'test', 'python', 'judge.py')
    const creds = credentialsFile(join(run, 'nats'), 'worker')
    const child = spawn(python!, [script, access.url, name, creds], { stdio: 'inherit' })
    await judgedBy('python-judge')
    child.kill()
    await judgedBy('consensus')
  })

  test('an actor that reads along remarks on what it reads, once, however often it is started', async () => {
    const file = await write(
      'critic.ts',
      `import { defineActor } from 'visplay/actor'
       const name = 'counter'
       export default defineActor({
         role: 'critic', name, version: '1', consumes: ['step'], produces: ['remark'],
         async handle({ message: { data } }, { append }) {
           const about = \`s\${data.step}\`
           await append('remark', \`counter-\${about}\`, { name, version: '1', about, data: { groups: data.groups.length } })
         },
       })`,
    )
    for (let i = 0; i < 2; i++) {
      const critic = inject(file)
      const { step } = evolving
        .events()
        .findLast((e): e is Extract<EvolveEvent, { event: 'step' }> => e.event === 'step')!
      await hear<EventData<'remark'>>('log.remark.*', ({ about }) => Number(about.slice(1)) > step)
      await leave(critic)
    }
  })

  test('one that does what it has not declared is told so, and harms nobody', async () => {
    const file = await write(
      'sneaky.ts',
      `import { defineActor } from 'visplay/actor'
       export default defineActor({
         role: 'sneaky', name: 'sneaky', version: '1', consumes: ['version'], produces: [],
         async handle(record, { append }) {
           await append('alarm', 'mine', { step: 0, name: 'x', message: 'x', value: 0 })
         },
       })`,
    )
    const sneaky = inject(file)
    await expect
      .poll(() => JSON.stringify(sneaky.events()), { timeout: 30_000 })
      .toContain('add \\"alarm\\" to its produces')
    await leave(sneaky)
  })

  test.each(['judge', 'filter', 'reward', 'critic', 'evaluator'])('--new %s works as it is', async (template) => {
    const file = join(dir, `new-${template}.ts`)
    expect((await program(['actor', '--new', template, file])).code).toBe(0)
    const again = await program(['actor', '--new', template, file])
    expect([again.code, again.stderr]).toEqual([2, expect.stringContaining('is there already')])
    const actor = inject(file)
    await expect.poll(() => actor.events().map((e) => e.event as string), { timeout: 30_000 }).toContain('joined')
    await leave(actor)
    expect((await readFile(file, 'utf8')).split('\n').length).toBeLessThan(42)
  })

  test.each([
    ['missing.ts', null, 'there is no file'],
    ['nothing.ts', 'export const x = 1', 'defineActor'],
    ['syntax.ts', 'export default {', 'syntax.ts'],
    [
      'unknown.ts',
      "export default { kind: 'log', role: 'a', name: 'b', version: '1', consumes: ['x'], produces: [], handle() {} }",
      'consumes',
    ],
    ['no-handle.ts', "export default { kind: 'judge', role: 'judge', name: 'b', version: '1' }", 'judge'],
  ])('%s is refused by its name', async (name, text, reason) => {
    const file = text === null ? join(dir, name) : await write(name, text)
    const { code, stderr } = await inject(file).ended
    expect([code, stderr]).toEqual([2, expect.stringContaining(reason)])
    expect(stderr).toContain(name)
    expect(stderr.trim().split('\n')).toHaveLength(1)
  })

  test('afterwards: no group was lost, every verdict names its judge, and the log explains every update', async () => {
    evolving.kill('SIGINT')
    expect((await evolving.ended).code).toBe(130)
    const judges = new Set<string>()
    const { tap, close } = await openTap(undefined, run)
    const options = { to: Infinity, signal: AbortSignal.timeout(60_000), onProblem: () => {} }
    for await (const { event, message } of readLog(tap, options)) {
      if (event === 'verdict') judges.add(`${message.data.judge.name} ${message.data.judge.version}`)
      if (event === 'dead') expect(message.data.kind).not.toMatch(/^(judge|reasoner|questioner)/)
    }
    await close()
    expect(judges).toContain('first 7')
    expect(judges).toContain('second 7')
    const { code, stdout } = await program(['replay', run, '--json'])
    const done = JSON.parse(stdout.trim().split('\n').at(-1)!) as { others: number }
    expect(done).toMatchObject({ event: 'done', ok: true })
    expect(done.others).toBeGreaterThan(0)
    expect(code).toBe(0)
    const away = await inject(join(dir, 'first.ts')).ended
    expect([away.code, away.stderr]).toEqual([1, expect.stringContaining('nobody works on the run')])
  })
})
