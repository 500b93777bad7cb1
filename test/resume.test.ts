/** Kill -9 of the whole job at any moment, and Ctrl-C: the run goes on and ends at the same bytes. */
import { createHash } from 'node:crypto'
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { startProgram, type Ended, type Program } from './support/program.ts'
import { SMALL_LEARNING as SMALL } from './support/small-run.ts'

const STEPS = 3
let dir: string
let whole: { readonly sha: string; readonly trained: string; readonly ms: number }

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'visplay-resume-'))
  const running = fresh('whole')
  await running.said('start')
  const begun = Date.now()
  const { code, stderr } = await running.ended
  const ms = Date.now() - begun
  expect(code, stderr).toBe(0)
  whole = { sha: await shaOf('whole'), trained: await trainedIn('whole'), ms }
})
afterAll(() => rm(dir, { recursive: true, force: true, maxRetries: 20 }))

const fresh = (name: string): Program =>
  startProgram(['evolve', '--json', '--seed', '3', '--steps', String(STEPS), ...SMALL, '--out', join(dir, name)])
const resumed = (name: string): Program => startProgram(['evolve', '--json', '--resume', join(dir, name)])

async function shaOf(name: string): Promise<string> {
  const bytes = await readFile(join(dir, name, 'checkpoints', 'final', 'model.safetensors'))
  return createHash('sha256').update(bytes).digest('hex')
}

interface StepLine {
  readonly event: string
  readonly step: number
  readonly groups: readonly string[]
}

/** Which groups each step trained, in order. */
async function trainedIn(name: string): Promise<string> {
  const lines = (await readFile(join(dir, name, 'metrics.jsonl'), 'utf8')).trim().split('\n')
  const steps = lines.map((line) => JSON.parse(line) as StepLine).filter(({ event }) => event === 'step')
  return steps.map(({ step, groups }) => `${step}: ${groups.join(' ')}`).join('\n')
}

/** Kills the program, unless it ended before. Its server dies with it, as in a power cut, or outlives it for a moment. */
async function killAt(name: string, running: Program, delay: number, withServer: boolean): Promise<Ended> {
  await running.said('start')
  const server = Number(await readFile(join(dir, name, 'nats', 'nats.pid'), 'utf8'))
  const ended = await Promise.race([sleep(delay), running.ended])
  if (ended) return ended
  if (withServer) process.kill(server, 'SIGKILL')
  running.kill('SIGKILL')
  return running.ended
}

test('kill -9 at three random moments: the same bytes, and no group trained twice', async () => {
  const delays: number[] = []
  let running = fresh('killed')
  let kills = 0
  // Thirds of the undisturbed time, so that there is something left to kill on a machine of any speed.
  for (const withServer of [true, false, true]) {
    delays.push(Math.round((Math.random() * whole.ms) / 3))
    const { signal } = await killAt('killed', running, delays.at(-1)!, withServer)
    if (signal !== 'SIGKILL') break
    kills++
    running = resumed('killed')
  }
  const { code, stderr } = await running.ended
  const about = `killed ${delays.join(', ')} ms after its start: ${stderr}`
  expect(kills, about).toBeGreaterThan(0)
  expect(code, about).toBe(0)
  expect(running.events().at(-1), about).toMatchObject({ event: 'done', version: STEPS })
  expect(await shaOf('killed'), about).toBe(whole.sha)
  expect(await trainedIn('killed'), about).toBe(whole.trained)
})

test('Ctrl-C stops in order, says how to go on, and ends with 130', async () => {
  const running = fresh('stopped')
  await running.said('step')
  running.kill('SIGINT')
  const { code, stderr } = await running.ended
  expect(code, stderr).toBe(130)
  expect(stderr).toContain(`go on with: npx visplay evolve --resume ${join(dir, 'stopped')}\n`)
  const server = Number(await readFile(join(dir, 'stopped', 'nats', 'nats.pid'), 'utf8').catch(() => '0'))
  if (server > 0) expect(() => process.kill(server, 0)).toThrow('ESRCH')
  const again = await resumed('stopped').ended
  expect(again.code, again.stderr).toBe(0)
  expect(await shaOf('stopped')).toBe(whole.sha)
})
