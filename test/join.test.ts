/** More processes in one run: the same results, sooner. Real processes, a real server, a real model. */
import { copyFile, mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest'
import { parseEnvelope } from '../bus/codec.ts'
import { headSchema, type EventData } from '../bus/messages.ts'
import { openTap } from '../runners/tap/open.ts'
import type { EvolveEvent } from '../runners/cli/events.ts'
import type { JoinEvent } from '../runners/join/join.ts'
import type { TapLine } from '../runners/tap/decode.ts'
import { type Program, program, startProgram } from './support/program.ts'
import { SMALL } from './support/small-run.ts'

let dir: string
let env: NodeJS.ProcessEnv
beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'visplay-join-'))
  // A cache of its own for the checkpoint; the server is the one that is installed.
  env = { ...process.env, XDG_CACHE_HOME: join(dir, 'cache') }
})
afterAll(async () => rm(dir, { recursive: true, force: true, maxRetries: 20 }))

const start = (name: string, ...args: string[]): Program =>
  startProgram(['evolve', '--json', '--out', join(dir, name), '--run', name, ...SMALL, ...args])

/** What `join` is to be called with, as the run says. */
async function joinArgs(run: Program): Promise<string[]> {
  await run.said('join')
  const { command } = run.events().find((e): e is Extract<EvolveEvent, { event: 'join' }> => e.event === 'join')!
  return [...command.replace('npx visplay ', '').split(' '), '--json']
}

const joinEvents = (stdout: string): JoinEvent[] =>
  stdout
    .split('\n')
    .slice(0, -1)
    .map((line) => JSON.parse(line) as JoinEvent)

/** A joiner that is at work before the run goes on: on a fast machine the run would be over. */
async function joiner(run: Program, more: readonly string[] = [], cwd = dir): Promise<Program> {
  const [command, url, ...args] = await joinArgs(run)
  run.kill('SIGSTOP')
  // The name of this machine may mean nothing to it.
  const local = `nats://127.0.0.1:${new URL(url!).port}`
  const joining = startProgram([command!, local, ...args, ...more], { env, cwd })
  const joined = () => (joining.events() as unknown as JoinEvent[]).some((e) => e.event === 'joined')
  await Promise.race([vi.waitFor(() => expect(joined()).toBe(true), 60_000), joining.ended])
  run.kill('SIGCONT')
  return joining
}

const weightsOf = (name: string) => readFile(join(dir, name, 'checkpoints', 'final', 'model.safetensors'))

/** Senders of replies of the model that are not the process itself. */
async function repliesOf(pid: number, name: string): Promise<string[]> {
  const { stdout } = await program(['tap', '--json', '--run', join(dir, name), '--since', 'start', 'log.generated.*'])
  const lines = stdout.split('\n').slice(0, -1)
  const senders = lines.map((line) => (JSON.parse(line) as Extract<TapLine, { by: string }>).by)
  return senders.filter((by) => !by.includes(`-${pid}-`))
}

describe('visplay join', () => {
  test('a joiner with a checkpoint of its own works for the run until it ends, and the result is the same', async () => {
    const alone = await start('alone', '--steps', '10').ended
    expect(alone.code, alone.stderr).toBe(0)
    const run = start('shared', '--steps', '10')
    const joining = await joiner(run, ['--actors', 'model=1,judge=1,reasoner,questioner=1'])
    const joined = await joining.ended
    const ended = await run.ended
    expect(ended.code, ended.stderr).toBe(0)
    expect(joined.code, joined.stderr).toBe(0)
    const events = joinEvents(joined.stdout)
    expect(events.find((e) => e.event === 'joined')).toMatchObject({
      run: 'shared',
      actors: ['model-1', 'judge-1', 'reasoner-1', 'questioner-1'],
    })
    expect(events.at(-1)).toMatchObject({ event: 'done', run: 'shared', version: 10 })
    expect(await repliesOf(run.pid, 'shared')).not.toEqual([])
    expect((await weightsOf('shared')).equals(await weightsOf('alone'))).toBe(true)
  })

  test('a joiner that is killed in its work costs nothing', async () => {
    const run = start('killed', '--steps', '4')
    const joining = await joiner(run)
    await run.said('step')
    joining.kill('SIGKILL')
    const ended = await run.ended
    expect(ended.code, ended.stderr).toBe(0)
    const { stdout } = await program(['tap', '--json', '--run', join(dir, 'killed'), '--since', 'start', 'log.dead.*'])
    expect(stdout).toBe('')
  })

  test('an Optimizer that stands by takes over from one that is frozen, which then commits nothing more', async () => {
    const run = start('frozen', '--steps', '10', '--set', 'train.maxLag=1')
    const creds = ['--creds', join(dir, 'frozen', 'nats', 'optimizer.creds')]
    const joining = await joiner(run, ['--actors', 'model=1,judge=1,reasoner=1,questioner=1,optimizer=1', ...creds])
    await run.said('step')
    run.kill('SIGSTOP')
    const { tap, close } = await openTap(undefined, join(dir, 'frozen'))
    const epoch = async () => headSchema.parse(parseEnvelope((await tap.value('head'))!, 'head').data).epoch
    await vi.waitFor(async () => expect(await epoch()).toBeGreaterThan(1), 60_000)
    await close()
    run.kill('SIGCONT')
    const ended = await run.ended
    expect(ended.code, ended.stderr).toBe(0)
    expect((await joining.ended).code).toBe(0)
    expect(ended.stdout).toMatch(/optimizer\.[^ ]+ trains from now on/)
    const versions = await program(['tap', '--json', '--run', join(dir, 'frozen'), '--since', 'start', 'log.version.*'])
    const heads = versions.stdout.split('\n').slice(0, -1)
    const lineage = heads.map((line) => (JSON.parse(line) as { data: EventData<'version'> }).data)
    expect(lineage.map((v) => v.weights)).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10])
    expect(lineage.slice(1).map((v) => v.parent)).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8, 9])
    const epochs = lineage.map((v) => v.epoch)
    expect(epochs).toEqual(epochs.toSorted((a, b) => a - b))
    const { stdout } = await program(['replay', join(dir, 'frozen'), '--json'])
    expect(JSON.parse(stdout.trim().split('\n').at(-1)!)).toMatchObject({ ok: true, steps: 10, sameUpdates: 10 })
  })

  test('the checkpoint is fetched once, verified, and mended when it is damaged', async () => {
    const [name] = await readdir(join(env['XDG_CACHE_HOME']!, 'visplay', 'base'))
    const cached = join(env['XDG_CACHE_HOME']!, 'visplay', 'base', name!)
    await writeFile(join(cached, 'config.json'), '{"model_type": "evil"}')
    const run = start('mended', '--steps', '3')
    const joined = await (await joiner(run)).ended
    expect((await run.ended).code).toBe(0)
    expect(joined.code, joined.stderr).toBe(0)
    expect(joinEvents(joined.stdout).filter((e) => e.event === 'fetching').length).toBeGreaterThan(0)
    expect(await readFile(join(cached, 'config.json'), 'utf8')).toContain('smolvlm')
  })

  test('a run asks for credentials, and says so in one line', async () => {
    const run = start('closed', '--steps', '3', '--listen', '0.0.0.0')
    const [, url, ...rest] = await joinArgs(run)
    const { port } = new URL(url!)
    expect(rest).toEqual(['--run', 'closed', '--creds', 'worker.creds', '--json'])
    run.kill('SIGSTOP')
    const bare = `nats://127.0.0.1:${port}`
    const refused = await program(['join', bare, '--run', 'closed'], { env })
    expect([refused.code, refused.stdout]).toEqual([1, ''])
    expect(refused.stderr).toMatch(/^visplay: the NATS server at nats:\/\/127[^\n]* refuses: [^\n]* --creds [^\n]*\n$/)
    const there = join(dir, 'another-machine')
    await mkdir(there)
    const said = run.events()
    const { files } = said.find((e): e is Extract<EvolveEvent, { event: 'join' }> => e.event === 'join')!
    expect(files).toEqual([join(dir, 'closed', 'nats', 'worker.creds')])
    await copyFile(files[0]!, join(there, 'worker.creds'))
    const joining = await joiner(run, [], there)
    const joined = await joining.ended
    expect(joined.code, joined.stderr).toBe(0)
    expect((await run.ended).code).toBe(0)
    const notes = said.filter((e) => e.event === 'note').map((e) => e.message)
    expect(notes).toEqual([expect.stringMatching(/can be read in the network: .*--tls-cert/)])
    const tapped = await program(['tap', '--json', '--run', join(dir, 'closed'), '--since', 'start', 'log.step.*'])
    const lines = tapped.stdout.split('\n').slice(0, -1)
    expect(lines.map((line) => (JSON.parse(line) as Extract<TapLine, { subject: string }>).subject)).toHaveLength(3)
  })

  test('what is wrong is one line', async () => {
    const away = await program(['join', 'nats://127.0.0.1:1'])
    expect([away.code, away.stdout]).toEqual([1, ''])
    expect(away.stderr).toMatch(/^visplay: no NATS server answers at nats:\/\/127\.0\.0\.1:1 [^\n]*\n$/)
    const actor = await program(['join', 'nats://127.0.0.1:1', '--actors', 'king=1'])
    expect([actor.code, actor.stderr.includes('There is no actor "king"')]).toEqual([2, true])
  })
})
