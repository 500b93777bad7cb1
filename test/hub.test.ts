/** Models by their name on the hub: the program, its cache, and a server that speaks the hub's endpoints. */
import { existsSync } from 'node:fs'
import { cp, lstat, mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import { PACKAGE_ROOT, readConfig } from '../configs/load.ts'
import { readSafetensors, writeSafetensors } from '../models/io/safetensors.ts'
import { parseHubName } from '../runners/hub/name.ts'
import { COMMIT, startHub, type HubServer } from './support/hub-server.ts'
import { program, type Ended } from './support/program.ts'
import { SMALL } from './support/small-run.ts'

const REPO = 'someone/tiny-vlm'
const TINY = join(PACKAGE_ROOT, 'models', 'tiny')
const ASK = ['--prompt', 'what color is it?', '--json']

let hub: HubServer
let dir: string
let homes = 0
beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'visplay-hub-'))
  hub = await startHub(REPO, TINY, { 'README.md': '# tiny', 'pytorch_model.bin': 'x'.repeat(5000) })
})
afterEach(() => {
  Object.assign(hub, { breakAt: null, damage: null, gatedFor: null })
  hub.asked.length = 0
})
afterAll(async () => {
  await hub.close()
  await rm(dir, { recursive: true, force: true, maxRetries: 20 })
})

const newHome = () => join(dir, `home${++homes}`)
const blobs = (home: string) => join(home, 'hub', 'models--someone--tiny-vlm', 'blobs')
const run = (home: string, args: readonly string[], env: NodeJS.ProcessEnv = {}): Promise<Ended> => {
  // An empty variable is none.
  const own = { ...process.env, HF_TOKEN: '', HF_HUB_OFFLINE: '', HF_HUB_CACHE: join(home, 'hub') }
  return program(args, { cwd: dir, env: { ...own, HF_ENDPOINT: hub.url, HF_HOME: home, ...env } })
}
const generate = (home: string, model = REPO, env: NodeJS.ProcessEnv = {}) =>
  run(home, ['generate', '--model', model, ...ASK], env)
const files = () => hub.asked.filter(({ path }) => path.includes('/resolve/'))

describe('a name', () => {
  test.each([
    ['owner/name', { repo: 'owner/name', revision: 'main' }],
    ['HuggingFaceTB/SmolVLM-256M-Instruct@v1.0', { repo: 'HuggingFaceTB/SmolVLM-256M-Instruct', revision: 'v1.0' }],
    ['a/b@refs/pr/1', { repo: 'a/b', revision: 'refs/pr/1' }],
    ['name', null],
    ['./owner/name', null],
    ['/owner/name', null],
    ['a/b/c', null],
    ['../a', null],
    ['a/b@../../x', null],
    ['a/b@', null],
  ])('%s', (text, name) => expect(parseHubName(text)).toEqual(name))
})

describe('a model of the hub', () => {
  test('is fetched with progress, without what is not needed, into the layout that Python reads', async () => {
    const home = newHome()
    const { code, stdout, stderr } = await generate(home, REPO, { HF_TOKEN: 'hf_mine' })
    expect([code, stderr]).toEqual([0, expect.stringMatching(/fetching someone\/tiny-vlm: (\d+\.\d) of \1 MB\n/)])
    const local = await run(home, ['generate', '--model', TINY, ...ASK])
    expect(stdout).toBe(local.stdout)
    expect(new Set(hub.asked.map(({ token }) => token))).toEqual(new Set(['hf_mine']))
    expect(files().filter(({ path }) => /README|\.bin$/.test(path))).toEqual([])
    const folder = join(home, 'hub', 'models--someone--tiny-vlm')
    const snapshot = join(folder, 'snapshots', COMMIT)
    expect(await readFile(join(folder, 'refs', 'main'), 'utf8')).toBe(COMMIT)
    const names = await readdir(snapshot)
    expect(names).toContain('model.safetensors')
    expect(names.filter((name) => /README|\.bin$/.test(name))).toEqual([])
    expect((await lstat(join(snapshot, 'config.json'))).isSymbolicLink()).toBe(true)
    expect((await readdir(blobs(home))).every((name) => /^([0-9a-f]{40}|[0-9a-f]{64})$/.test(name))).toBe(true)
  })

  test('is in the cache the second time, and offline without any request', async () => {
    const home = newHome()
    const first = await generate(home)
    hub.asked.length = 0
    const again = await generate(home)
    expect([again.stdout, again.stderr]).toEqual([first.stdout, ''])
    expect(files()).toEqual([])
    hub.asked.length = 0
    const offline = await generate(home, REPO, { HF_HUB_OFFLINE: '1' })
    expect([offline.code, offline.stdout, offline.stderr]).toEqual([0, first.stdout, ''])
    expect((await generate(home, `${REPO}@${COMMIT}`)).stdout).toBe(first.stdout)
    expect(hub.asked).toEqual([])
    const away = await generate(home, REPO, { HF_ENDPOINT: 'http://127.0.0.1:2' })
    expect([away.code, away.stdout]).toEqual([0, first.stdout])
    expect(away.stderr).toContain(`http://127.0.0.1:2 cannot be asked (ECONNREFUSED): ${REPO} is commit ${COMMIT}`)
  })

  test('in shards has the files that its index names', async () => {
    const folder = join(dir, 'sharded')
    await cp(TINY, folder, { recursive: true })
    const tensors = Object.entries(await readSafetensors(join(TINY, 'model.safetensors')))
    const half = Math.ceil(tensors.length / 2)
    const shards = {
      'model-00001-of-00002.safetensors': tensors.slice(0, half),
      'model-00002-of-00002.safetensors': tensors.slice(half),
    }
    await rm(join(folder, 'model.safetensors'))
    for (const [file, some] of Object.entries(shards))
      await writeSafetensors(join(folder, file), Object.fromEntries(some))
    const map = Object.entries(shards).flatMap(([file, some]) => some.map(([tensor]) => [tensor, file]))
    const index = { 'model.safetensors.index.json': JSON.stringify({ weight_map: Object.fromEntries(map) }) }
    const other = await startHub('someone/sharded', folder, { ...index, 'model.fp16.safetensors': 'x' })
    const home = newHome()
    const { code, stdout, stderr } = await generate(home, 'someone/sharded', { HF_ENDPOINT: other.url })
    await other.close()
    expect(code, stderr).toBe(0)
    expect(stdout).toBe((await generate(home, TINY)).stdout)
    expect(other.asked.filter(({ path }) => path.includes('fp16'))).toEqual([])
    const offline = await generate(home, 'someone/sharded', { HF_HUB_OFFLINE: '1' })
    expect([offline.code, offline.stdout]).toEqual([0, stdout])
    await rm(join(home, 'hub', 'models--someone--sharded', 'snapshots', COMMIT, 'model-00002-of-00002.safetensors'))
    expect((await generate(home, 'someone/sharded', { HF_HUB_OFFLINE: '1' })).code).toBe(1)
  })

  test('goes on at the byte where a transfer broke', async () => {
    const home = newHome()
    hub.breakAt = { file: 'model.safetensors', bytes: 1_000_000 }
    expect((await generate(home)).code).toBe(0)
    const ranges = files().flatMap(({ path, range }) => (path.endsWith('model.safetensors') && range ? [range] : []))
    const resumed = ranges.map((range) => Number(/^bytes=(\d+)-/.exec(range)![1])).filter((from) => from > 0)
    expect(resumed).toHaveLength(1)
    expect(resumed[0]).toBeGreaterThan(0)
    expect(resumed[0]).toBeLessThanOrEqual(1_000_000)
  })

  test('goes on with what an earlier process left', async () => {
    const home = newHome()
    const whole = await readFile(join(TINY, 'model.safetensors'))
    await generate(home)
    const folder = join(home, 'hub', 'models--someone--tiny-vlm')
    const sha = (await readdir(blobs(home))).find((name) => name.length === 64)!
    await rm(join(folder, 'snapshots'), { recursive: true })
    await rm(join(blobs(home), sha))
    await writeFile(join(blobs(home), `${sha}.incomplete`), whole.subarray(0, 1234))
    hub.asked.length = 0
    expect((await generate(home)).code).toBe(0)
    expect(files().map(({ range }) => range)).toContain(`bytes=1234-${whole.length - 1}`)
    expect((await readFile(join(blobs(home), sha))).equals(whole)).toBe(true)
  })

  test.each(['model.safetensors', 'config.json'])('whose %s arrives damaged is refused', async (file) => {
    const home = newHome()
    hub.damage = file
    const { code, stdout, stderr } = await generate(home)
    expect([code, stdout]).toEqual([1, ''])
    expect(stderr).toMatch(new RegExp(`visplay: ${file} of ${REPO} arrived damaged: its hash is [0-9a-f]+, .*\n$`))
    expect((await readdir(blobs(home))).filter((name) => name.endsWith('.incomplete'))).toEqual([])
    hub.damage = null
    expect((await generate(home)).code).toBe(0)
  })
})

describe('what cannot be had ends with 1 and one line that says what to do', () => {
  const refused = ({ code, stdout, stderr }: Ended): string => {
    expect([code, stdout]).toEqual([1, ''])
    expect(stderr).toMatch(/^(fetching .*\n)?visplay: [^\n]*\n$/)
    return stderr
  }

  test('an unknown name', async () => {
    const line = refused(await generate(newHome(), 'someone/else'))
    expect(line).toContain('someone/else: there is no such folder here, and no such model')
    expect(line).toContain('a private one needs HF_TOKEN (401)')
    expect(line).toContain('hf download someone/else (huggingface-cli in older releases), then copy')
    expect(refused(await generate(newHome(), 'someone/else', { HF_TOKEN: 'hf_a' }))).toContain('your HF_TOKEN (404)')
  })

  test('a gated model, until the token is given', async () => {
    const home = newHome()
    hub.gatedFor = 'hf_right'
    const line = refused(await generate(home))
    expect(line).toContain(`accepted its conditions (403): do so at ${hub.url}/${REPO} and set HF_TOKEN`)
    expect((await generate(home, REPO, { HF_TOKEN: 'hf_right' })).code).toBe(0)
  })

  test('a token that is none', async () => {
    expect(refused(await generate(newHome(), REPO, { HF_TOKEN: 'mine' }))).toContain('those begin with hf_')
  })

  test('no network, or offline', async () => {
    const home = newHome()
    const folder = join(home, 'hub', 'models--someone--tiny-vlm')
    const away = refused(await generate(home, `${REPO}@v2`, { HF_ENDPOINT: 'http://127.0.0.1:2' }))
    expect(away).toContain('http://127.0.0.1:2 cannot be reached (ECONNREFUSED)')
    expect(away).toContain(`hf download ${REPO} --revision v2 (huggingface-cli in older releases), then copy`)
    expect(away).toContain(` to ${folder}`)
    expect(refused(await generate(home, REPO, { HF_HUB_OFFLINE: '1' }))).toContain('HF_HUB_OFFLINE forbids')
    expect(hub.asked).toEqual([])
  })

  test('a folder that is misspelled is not asked for', async () => {
    await mkdir(join(dir, 'models', 'mine'), { recursive: true })
    expect(refused(await generate(newHome(), 'models/mien'))).toContain(
      `there is no folder ${join(dir, 'models', 'mien')} (did you mean "mine"?)`,
    )
    expect(refused(await generate(newHome(), './gone'))).toContain('hub is written owner/name')
    expect(hub.asked).toEqual([])
  })
})

test('a run records the commit, and what is lost of the cache is fetched again when it is resumed', async () => {
  const home = newHome()
  const out = join(dir, 'run')
  const steps = ['--steps', '1', '--json', ...SMALL]
  const { code, stderr } = await run(home, ['evolve', '--model', REPO, '--out', out, ...steps])
  expect(code, stderr).toBe(0)
  const { model } = readConfig(join(out, 'config.yaml'))
  expect(model).toMatchObject({
    hub: `${REPO}@${COMMIT}`,
    dir: join(home, 'hub', 'models--someone--tiny-vlm', 'snapshots', COMMIT),
  })
  expect(existsSync(join(out, 'checkpoints', 'final', 'config.json'))).toBe(true)
  expect((await lstat(join(out, 'checkpoints', 'final', 'config.json'))).isSymbolicLink()).toBe(false)
  await rm(home, { recursive: true })
  const resumed = await run(home, ['evolve', '--resume', out, '--json'])
  expect(resumed.code, resumed.stderr).toBe(0)
  expect(existsSync(model.dir)).toBe(true)
})
