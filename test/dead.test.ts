/** Tasks that are given up: seen, shown, and done after all. A real run with a judge that fails until it is mended. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { program, startProgram, type Program } from './support/program.ts'
import { SMALL } from './support/small-run.ts'

/** Of the first step that it sees, throws at one group until the file `mended` is there, and holds one until `released`. */
const MOODY = `
import { existsSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { defineActor } from 'visplay/actor'

const there = (name: string) => existsSync(new URL(\`./\${name}\`, import.meta.url))
let first = Infinity

export default defineActor({
  role: 'judge', name: 'moody', version: '1', consumes: 'judge.groups', produces: ['verdict'],
  async handle({ data: { step, groups } }, { append }) {
    first = Math.min(first, step)
    for (const { group, answers } of groups) {
      if (step === first && group.endsWith('-i0-q0') && !there('mended')) throw new Error('in no mood')
      while (step === first && group.endsWith('-i1-q0') && !there('released')) await sleep(50)
      const verdict = { rewards: [0, 0, 0, 0], keep: false, dropped: 'moody', agreement: 0, majority: null, share: 0 }
      await append('verdict', group, {
        step, group, judge: { name: 'moody', version: '1' }, recipe: 'moody',
        questioner: { reward: 0, parts: {} },
        reasoner: answers === null ? null : verdict,
      })
    }
  },
})
`

let dir: string
let run: Program
let judge: Program
beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'visplay-dead-'))
  run = startProgram(['evolve', '--json', '--steps', '100000', '--out', join(dir, 'run'), ...SMALL])
  await run.said('step')
  await writeFile(join(dir, 'moody.ts'), MOODY)
  judge = startProgram(['actor', join(dir, 'moody.ts'), '--run', join(dir, 'run'), '--json'])
})
afterAll(async () => {
  for (const started of [judge, run]) {
    started?.kill('SIGKILL')
    await started?.ended
  }
  await rm(dir, { recursive: true, force: true, maxRetries: 20 })
})

async function dead(
  ...args: string[]
): Promise<{ code: number | null; stderr: string; lines: Record<string, unknown>[] }> {
  const { code, stdout, stderr } = await program(['dead', ...args, '--run', join(dir, 'run'), '--json'])
  const lines = stdout.split('\n').slice(0, -1)
  return { code, stderr, lines: lines.map((line) => JSON.parse(line) as Record<string, unknown>) }
}

test('a task that fails five times is listed, shown, retried once its cause is mended, and counts after all', async () => {
  await expect.poll(async () => (await dead('list')).lines.length, { timeout: 60_000, interval: 500 }).toBe(1)
  const [task] = (await dead('list')).lines
  const name = task!['name'] as string
  expect(name).toMatch(/^judge-groups-s\d+-i0-q0$/)
  expect(task).toMatchObject({ kind: 'judge.groups', state: 'dead', deliveries: 5, cause: 'Error: in no mood' })
  const group = task!['id'] as string
  const { lines } = await dead('show', name)
  expect(lines[0]).toMatchObject({ name, message: { schema: 'judge.groups', data: { groups: [{ group }] } } })
  expect(run.events().some((e) => e.event === 'alarm' && e.name === 'dead-task')).toBe(true)

  await writeFile(join(dir, 'mended'), '')
  expect(await dead('retry', name)).toMatchObject({ code: 0, lines: [{ event: 'retried', name }] })
  const told = () => program(['tap', `log.verdict.${group}`, '--since', 'start', '--run', join(dir, 'run'), '--json'])
  await expect.poll(async () => (await told()).stdout, { timeout: 60_000, interval: 500 }).toContain('moody')
  await writeFile(join(dir, 'released'), '')
  const step = () => run.events().filter((e) => e.event === 'step').length
  const before = step()
  await expect.poll(step, { timeout: 60_000 }).toBeGreaterThan(before + 1)
  // Retried in time, so that the update of its step has it; now it is too late.
  expect((await dead('list')).lines).toMatchObject([{ name, state: 'retried' }])
  const again = await dead('retry', '--all')
  expect([again.code, again.lines]).toEqual([0, []])
})

test('a name that nobody knows is refused with one that is near', async () => {
  const { code, stderr } = await dead('retry', 'judge-groups-s0-i0-q0')
  expect([code, stderr.trim().split('\n')]).toEqual([2, [expect.stringContaining('visplay dead list')]])
})
