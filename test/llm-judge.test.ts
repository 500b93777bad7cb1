/** The judge that asks a language model: its client against a server that misbehaves, and a run with `visplay serve`. */
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from 'vitest'
import { agreementOf, llmAgreement } from '../actors/llm/agreement.ts'
import type { EventData } from '../bus/messages.ts'
import { within } from '../bus/within.ts'
import { PACKAGE_ROOT } from '../configs/load.ts'
import { decodeHeard } from '../runners/tap/decode.ts'
import { openTap } from '../runners/tap/open.ts'
import { program, startProgram, type Program, type StartOptions } from './support/program.ts'
import { SMALL } from './support/small-run.ts'

/** What the endpoint does with one request: a status, or the text of its answer. */
type Behaviour = (prompt: string) => number | string | Promise<number | string>

let endpoint: Server
let url: string
let behave: Behaviour
const asked: string[] = []
let [open, most] = [0, 0]
beforeAll(async () => {
  endpoint = createServer((request, response) => {
    void (async () => {
      if (request.url === '/v1/models') return void response.end('{"object":"list","data":[]}')
      const parts: Buffer[] = []
      for await (const part of request) parts.push(part as Buffer)
      const body = JSON.parse(Buffer.concat(parts).toString()) as { messages: { content: string }[] }
      const prompt = body.messages[0]!.content
      asked.push(prompt)
      most = Math.max(most, ++open)
      const said = await behave(prompt)
      open--
      if (typeof said === 'number') return void response.writeHead(said).end('busy')
      response.end(JSON.stringify({ choices: [{ message: { content: said } }] }))
    })()
  })
  await new Promise<void>((resolve) => endpoint.listen(0, '127.0.0.1', resolve))
  url = `http://127.0.0.1:${(endpoint.address() as AddressInfo).port}/v1`
})
afterEach(() => {
  asked.length = 0
  most = 0
})
afterAll(() => new Promise((resolve) => endpoint.close(resolve)))

describe('agreement by a language model', () => {
  test('asks about each pair once, and not about equal answers', async () => {
    behave = (prompt) => (prompt.includes('Given answer: car') ? 'Yes.' : 'no, it is not')
    const llm = await llmAgreement({ url, model: 'm' })
    const answers = ['An automobile', 'car', 'Car.', 'tree', null, 'tree']
    expect(await llm.agree('what is it?', 'automobile', answers)).toEqual([1, 1, 1, 0, 0, 0])
    expect(asked).toHaveLength(2)
    expect(await llm.agree('what is it?', 'automobile', answers)).toEqual([1, 1, 1, 0, 0, 0])
    expect(asked).toHaveLength(2)
    expect(await llm.agree('what else?', 'automobile', ['car'])).toEqual([1])
    expect(asked).toHaveLength(3)
  })

  test('keeps to its concurrency', async () => {
    let release = (): void => {}
    const held = new Promise<void>((resolve) => (release = resolve))
    behave = () => held.then(() => 'no')
    const llm = await llmAgreement({ url, model: 'm', concurrency: 3 })
    const all = llm.agree(
      'q',
      'zero',
      Array.from({ length: 12 }, (_, i) => `answer ${i + 1}`),
    )
    await expect.poll(() => open).toBe(3)
    release()
    expect(await all).toEqual(Array(12).fill(0))
    expect([asked.length, most]).toEqual([12, 3])
  })

  test('tries again when the endpoint is busy, and says so once', async () => {
    let left = 2
    behave = () => (left-- > 0 ? 503 : 'yes')
    const warnings: string[] = []
    const llm = await llmAgreement({ url, model: 'm', onWarning: (message) => warnings.push(message) })
    expect(await llm.agree('q', 'a', ['b'])).toEqual([1])
    expect(asked).toHaveLength(3)
    expect(warnings).toEqual([`the LLM at ${url} answered 503: busy; trying again`, `the LLM at ${url} answers again`])
  })

  test('rejects when all tries fail, and asks anew the next time; a refusal is not tried again', async () => {
    const llm = await llmAgreement({ url, model: 'm', retries: 1, onWarning: () => {} })
    behave = () => 500
    await expect(llm.agree('q', 'a', ['b'])).rejects.toThrow(`the LLM at ${url} answered 500: busy`)
    expect(asked).toHaveLength(2)
    behave = () => 401
    await expect(llm.agree('q', 'a', ['b'])).rejects.toThrow('answered 401')
    expect(asked).toHaveLength(3)
    behave = () => 'yes'
    expect(await llm.agree('q', 'a', ['b'])).toEqual([1])
  })

  test('stops when it is told to', async () => {
    behave = () => 503
    const llm = await llmAgreement({ url, model: 'm', retries: 1000, onWarning: () => {} })
    const stop = new AbortController()
    const asking = llm.agree('q', 'a', ['b'], stop.signal)
    await expect.poll(() => asked.length).toBeGreaterThan(0)
    stop.abort(new Error('told to stop'))
    await expect(asking).rejects.toThrow('told to stop')
  })

  test.each([
    ['Yes', 1],
    ['**no**, they differ', 0],
    ['', null],
    ['none', null],
    ['I think yes', null],
  ])('%j is %j', (reply, agreement) => expect(agreementOf(reply)).toBe(agreement))

  test('an option that is missing, or an endpoint that is away, is said before anything is judged', async () => {
    await expect(llmAgreement({ url: undefined, model: 'm' })).rejects.toThrow('the url of the LLM')
    await expect(llmAgreement({ url, model: undefined })).rejects.toThrow('the model of the LLM')
    await expect(llmAgreement({ url: 'http://127.0.0.1:2/v1', model: 'm' })).rejects.toThrow(
      'the LLM at http://127.0.0.1:2/v1 does not answer (ECONNREFUSED)',
    )
  })
})

describe('in a run', () => {
  let dir: string
  let run: string
  let evolving: Program
  beforeAll(async () => {
    dir = await mkdtemp(join(tmpdir(), 'visplay-llm-'))
    run = join(dir, 'run')
    evolving = startProgram(['evolve', '--json', '--steps', '100000', '--out', run, '--run', 'mine', ...SMALL])
    await evolving.said('step')
  })
  afterAll(async () => {
    evolving.kill('SIGKILL')
    await evolving.ended
    await rm(dir, { recursive: true, force: true, maxRetries: 20 })
  })

  async function serve(...args: string[]): Promise<{ server: Program; url: string }> {
    const server = startProgram(['serve', '--port', '0', '--json', ...args])
    const said = () => (server.events() as unknown as { event: string; url: string }[])[0]
    await vi.waitUntil(said, { timeout: 60_000 })
    return { server, url: `${said()!.url}/v1` }
  }
  const inject = (file: string, env: NodeJS.ProcessEnv): Program => {
    const options: StartOptions = { env: { ...process.env, ...env } }
    return startProgram(['actor', file, '--run', run, '--json'], options)
  }
  /** Verdicts of a judge as they come, until one passes. */
  async function verdict(passes: (data: EventData<'verdict'>) => boolean): Promise<void> {
    const { tap, close } = await openTap(undefined, run)
    const listen = async (signal: AbortSignal) => {
      for await (const heard of tap.listen({ filter: 'log.verdict.*', since: null, follow: true, signal })) {
        const line = await decodeHeard(heard, tap)
        if ('data' in line && passes(line.data as EventData<'verdict'>)) return true
      }
      return false
    }
    const found = await within(90_000, listen)
    await close()
    expect(found, 'such a verdict in time').toBe(true)
  }

  test('the template judges with what another language model says, and verdicts name it', async () => {
    const file = join(dir, 'llm.ts')
    expect((await program(['actor', '--new', 'llm-judge', file])).code).toBe(0)
    behave = () => 'yes'
    const judge = inject(file, { LLM_JUDGE_URL: url, LLM_JUDGE_MODEL: 'agreeable' })
    await verdict(
      ({ judge: by, reasoner }) =>
        by.name === 'llm-judge' &&
        by.version === '1 agreeable' &&
        reasoner !== null &&
        reasoner.keep &&
        reasoner.share < 1 &&
        reasoner.rewards.every((reward) => reward === 1),
    )
    judge.kill('SIGINT')
    expect((await judge.ended).code).toBe(130)
    await verdict(({ judge: by }) => by.name === 'consensus')
  })

  test('the base of the run itself is asked by visplay serve; what is unclear is dropped with the reason', async () => {
    const { server, url: own } = await serve('--run', run)
    const judge = inject(join(dir, 'llm.ts'), { LLM_JUDGE_URL: own, LLM_JUDGE_MODEL: 'mine@0' })
    // The tiny model says neither yes nor no to such a question.
    await verdict(
      ({ judge: by, reasoner, questioner }) =>
        by.version === '1 mine@0' &&
        reasoner?.dropped === 'mine@0 said neither yes nor no' &&
        questioner.parts['unclear']! > 0,
    )
    judge.kill('SIGINT')
    await judge.ended
    server.kill('SIGINT')
    expect((await server.ended).code).toBe(130)
  })

  test('a model of another process judges; when it goes away the judge says so, and nobody judges in its place', async () => {
    const { server, url: own } = await serve('--model', join(PACKAGE_ROOT, 'models', 'tiny'))
    const text = await readFile(join(PACKAGE_ROOT, 'runners', 'actor', 'templates', 'llm-judge.ts'), 'utf8')
    // Words that the tiny model knows, others each time: what was asked before would not be asked again.
    const counted =
      "'is there a circle? ' + [...(asked++).toString(2)].map((bit) => (bit === '1' ? 'yes' : 'no')).join(' ')"
    const file = join(dir, 'tiny-judge.ts')
    await writeFile(
      file,
      `let asked = 0\n${text.replace('{ url, model, key }', `{ url, model, key, prompt: () => ${counted} }`)}`,
    )
    const judge = inject(file, { LLM_JUDGE_URL: own, LLM_JUDGE_MODEL: 'tiny' })
    await verdict(({ judge: by }) => by.version === '1 tiny')
    const names = new Set<string>()
    const told = new AbortController()
    const { tap, close } = await openTap(undefined, run)
    const listening = (async () => {
      for await (const heard of tap.listen({
        filter: 'log.verdict.*',
        since: null,
        follow: true,
        signal: told.signal,
      })) {
        const line = await decodeHeard(heard, tap)
        if ('data' in line) names.add((line.data as EventData<'verdict'>).judge.name)
      }
    })()
    server.kill('SIGKILL')
    await server.ended
    // After all tries the group goes back to the queue, which the actor says as well.
    await expect
      .poll(() => JSON.stringify(judge.events()), { timeout: 60_000 })
      .toContain(`the LLM at ${own} does not answer (ECONNREFUSED)`)
    told.abort()
    await listening
    await close()
    expect([...names]).not.toContain('consensus')
    judge.kill('SIGINT')
    const { code, stderr } = await judge.ended
    expect([code, stderr]).toEqual([130, expect.stringMatching(/does not answer \([A-Z_]+\); trying again/)])
    await verdict(({ judge: by }) => by.name === 'consensus')
  })

  test('without an endpoint it does not start', async () => {
    const { code, stderr } = await inject(join(dir, 'llm.ts'), { LLM_JUDGE_URL: '', LLM_JUDGE_MODEL: 'm' }).ended
    expect([code, stderr]).toEqual([2, expect.stringMatching(/^visplay: .*llm\.ts: the url of the LLM: [^\n]*\n$/)])
  })
})
