/** `visplay serve` with OpenAI's own client: a model of its process, and the model actors of a run. */
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import OpenAI from 'openai'
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest'
import { PACKAGE_ROOT } from '../configs/load.ts'
import { loadTokenizer } from '../models/io/tokenizer.ts'
import { loadModel } from '../models/vlm/load.ts'
import { createApp } from '../runners/serve/app.ts'
import type { Backend } from '../runners/serve/backend.ts'
import { localBackend } from '../runners/serve/local-backend.ts'
import { writeImages } from '../runners/world/dataset.ts'
import { program, startProgram, type Program } from './support/program.ts'
import { SMALL } from './support/small-run.ts'

const TINY = join(PACKAGE_ROOT, 'models', 'tiny')
const QUESTION = 'what color is the circle?'

let dir: string
let image: string
let picture: string
beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'visplay-serve-'))
  await writeImages(dir, { count: 1, seed: 1, domain: 'clean' })
  image = join(dir, '000000.png')
  picture = `data:image/png;base64,${(await readFile(image)).toString('base64')}`
})
afterAll(() => rm(dir, { recursive: true, force: true, maxRetries: 20 }))

interface Listening {
  readonly event: string
  readonly url: string
  readonly model: string
}

/** A server of its own process, and its client. */
async function startServer(args: readonly string[]): Promise<{ server: Program; url: string; client: OpenAI }> {
  const server = startProgram(['serve', '--port', '0', '--json', ...args])
  const said = () => (server.events() as unknown as Listening[]).find((e) => e.event === 'listening')
  await vi.waitUntil(said, { timeout: 60_000 })
  const { url } = said()!
  return { server, url, client: new OpenAI({ baseURL: `${url}/v1`, apiKey: 'secret', maxRetries: 0 }) }
}

const ask = (text: string, url?: string): OpenAI.ChatCompletionMessageParam => ({
  role: 'user',
  content:
    url === undefined
      ? text
      : [
          { type: 'text', text },
          { type: 'image_url', image_url: { url } },
        ],
})

async function generate(...args: string[]): Promise<{ text: string; logprobs: number[]; promptTokens: number }> {
  const { stdout } = await program(['generate', '--model', TINY, '--json', ...args])
  return JSON.parse(stdout) as { text: string; logprobs: number[]; promptTokens: number }
}

describe('a model', () => {
  let server: Program
  let client: OpenAI
  let url: string
  beforeAll(async () => {
    ;({ server, client, url } = await startServer(['--model', TINY, '--api-key', 'secret', '--max-body', '1']))
  })
  afterAll(async () => {
    server.kill('SIGINT')
    expect((await server.ended).code).toBe(130)
  })
  const create = (body: Partial<OpenAI.ChatCompletionCreateParamsNonStreaming>) =>
    client.chat.completions.create({ model: 'tiny', messages: [ask(QUESTION)], ...body })

  test('is listed, and healthy without a key', async () => {
    expect((await client.models.list()).data.map(({ id }) => id)).toEqual(['tiny'])
    expect((await client.models.retrieve('tiny')).id).toBe('tiny')
    expect(await (await fetch(`${url}/health`)).json()).toMatchObject({ status: 'ok', model: 'tiny' })
  })

  test.each([
    ['text', undefined],
    ['an image', () => picture],
  ])('answers %s greedily as visplay generate does, and the same twice', async (_, given) => {
    const messages = [ask(QUESTION, given?.())]
    const [first, second] = [await create({ messages, temperature: 0 }), await create({ messages, temperature: 0 })]
    const own = await generate('--prompt', QUESTION, ...(given ? ['--image', image] : []))
    expect(first.choices[0]!.message.content).toBe(own.text)
    expect(second.choices).toEqual(first.choices)
    expect(first.usage!.prompt_tokens).toBe(own.promptTokens)
    expect(first.choices[0]!.finish_reason).toBe('stop')
  })

  test('samples as visplay generate does under the same seed, with its logprobs', async () => {
    const { choices, usage } = await create({ seed: 7, temperature: 1.5, max_tokens: 12, logprobs: true })
    const own = await generate('--prompt', QUESTION, '--seed', '7', '--temperature', '1.5', '--max-new-tokens', '12')
    expect(choices[0]!.message.content).toBe(own.text)
    const tokens = choices[0]!.logprobs!.content!
    expect(tokens.map(({ logprob }) => logprob)).toEqual(own.logprobs)
    expect(usage!.completion_tokens).toBe(own.logprobs.length)
    expect(Buffer.from(tokens[0]!.bytes!).toString()).toBe(tokens[0]!.token)
  })

  test('gives n samples, and stops at the longest length', async () => {
    const { choices, usage } = await create({ n: 8, seed: 3, max_completion_tokens: 1, temperature: 2 })
    expect(choices.map(({ index }) => index)).toEqual([0, 1, 2, 3, 4, 5, 6, 7])
    expect(new Set(choices.map(({ message }) => message.content)).size).toBeGreaterThan(1)
    expect(choices.map((c) => c.finish_reason)).toContain('length')
    expect(usage!.completion_tokens).toBe(8)
  })

  test('streams the very text and logprobs, token by token', async () => {
    const body = { seed: 5, n: 2, temperature: 1.5, max_tokens: 16, logprobs: true } as const
    const whole = await create(body)
    const stream = await client.chat.completions.create({
      ...{ model: 'tiny', messages: [ask(QUESTION)], ...body },
      ...{ stream: true, stream_options: { include_usage: true } },
    })
    const texts = ['', '']
    const logprobs: number[][] = [[], []]
    const ends: unknown[] = []
    let pieces = 0
    let usage: unknown
    for await (const { choices, usage: sum } of stream) {
      usage = sum ?? usage
      for (const { index, delta, finish_reason, logprobs: some } of choices) {
        texts[index] += delta.content ?? ''
        if (delta.content) pieces++
        logprobs[index]!.push(...(some?.content ?? []).map(({ logprob }) => logprob))
        if (finish_reason) ends[index] = finish_reason
      }
    }
    expect(texts).toEqual(whole.choices.map(({ message }) => message.content))
    expect(logprobs).toEqual(whole.choices.map((c) => c.logprobs!.content!.map(({ logprob }) => logprob)))
    expect(ends).toEqual(whole.choices.map((c) => c.finish_reason))
    expect(usage).toEqual(whole.usage)
    expect(pieces).toBeGreaterThan(2)
  })

  test('goes on when a client leaves in the middle of a stream', async () => {
    const stream = await client.chat.completions.create({
      ...{ model: 'tiny', messages: [ask(QUESTION)], n: 32, temperature: 2, max_tokens: 64, stream: true },
    })
    for await (const { choices } of stream) if (choices[0]?.delta.content) break
    expect((await create({ temperature: 0 })).choices).toHaveLength(1)
  })

  test('puts the text of system messages before that of the user', async () => {
    const both = await create({ messages: [{ role: 'system', content: 'what color' }, ask('is it?')], temperature: 0 })
    const one = await create({ messages: [ask('what color\n\nis it?')], temperature: 0 })
    expect(both.choices).toEqual(one.choices)
    expect(both.usage).toEqual(one.usage)
  })

  test.each<[string, number, string | null, string, Partial<OpenAI.ChatCompletionCreateParamsNonStreaming>]>([
    ['an unknown model', 404, 'model', 'model_not_found', { model: 'gpt-4' }],
    [
      'a second turn',
      400,
      'messages.0.role',
      'invalid_value',
      { messages: [ask('a'), { role: 'assistant', content: 'b' }] },
    ],
    ['no messages', 400, 'messages', 'invalid_value', { messages: [] }],
    ['too many tokens', 400, 'max_tokens', 'invalid_value', { max_tokens: 513 }],
    ['too many samples of that length', 400, 'max_tokens', 'invalid_value', { n: 64, max_tokens: 512 }],
    ['a wrong temperature', 400, 'temperature', 'invalid_value', { temperature: 3 }],
    ['what is not supported', 400, 'top_p', 'unsupported_parameter', { top_p: 0.5 }],
    [
      'a picture that is none',
      400,
      'messages',
      'invalid_image',
      { messages: [ask('a', 'data:image/png;base64,aGVsbG8=')] },
    ],
    ['an address', 400, 'messages', 'invalid_image_url', { messages: [ask('a', 'http://127.0.0.1:2/a.png')] }],
    ['a file', 400, 'messages', 'invalid_image_url', { messages: [ask('a', 'file:///etc/hostname')] }],
    ['a request that is too large', 413, null, 'too_large', { messages: [ask('a'.repeat(1_000_001))] }],
  ])('%s is refused in the form of the API', async (_, status, param, code, body) => {
    const error = await create(body).then(
      () => null,
      (e: unknown) => e as InstanceType<typeof OpenAI.APIError>,
    )
    expect([error?.status, error?.param ?? null, error?.code]).toEqual([status, param, code])
    expect((await create({ temperature: 0 })).choices).toHaveLength(1)
  })

  test('a wrong key, another type than JSON and an unknown path are refused', async () => {
    const stranger = new OpenAI({ baseURL: `${url}/v1`, apiKey: 'guess', maxRetries: 0 })
    await expect(stranger.models.list()).rejects.toMatchObject({ status: 401, code: 'invalid_api_key' })
    const headers = { authorization: 'Bearer secret', 'content-type': 'text/plain' }
    const plain = await fetch(`${url}/v1/chat/completions`, { method: 'POST', headers, body: '{}' })
    expect(plain.status).toBe(415)
    expect((await fetch(`${url}/v1/embeddings`, { method: 'POST', headers })).status).toBe(404)
  })
})

test('two questions that come while another is computed share a batch', async () => {
  const own = localBackend('tiny', await loadModel(TINY, { threads: 1 }), await loadTokenizer(TINY))
  const sizes: number[] = []
  let release = (): void => {}
  const held = new Promise<void>((resolve) => (release = resolve))
  const backend: Backend = {
    ...own,
    answer: async (asks) => {
      sizes.push(asks.length)
      await held
      return own.answer(asks)
    },
  }
  const options = { apiKey: null, maxBodyBytes: 1e6, maxTokens: 16, fetchImages: false, onError: () => {} }
  const app = createApp(backend, { ...options, signal: new AbortController().signal })
  const post = async (text: string) => {
    const body = JSON.stringify({ model: 'tiny', temperature: 0, messages: [{ role: 'user', content: text }] })
    const headers = { 'content-type': 'application/json' }
    const reply = await app.request('/v1/chat/completions', { method: 'POST', headers, body })
    return ((await reply.json()) as OpenAI.ChatCompletion).choices[0]!.message.content
  }
  const waiting = async () => ((await (await app.request('/health')).json()) as { waiting: number }).waiting
  const first = post('ask')
  await expect.poll(() => sizes).toEqual([1])
  const others = [post(QUESTION), post('how many objects are there?')]
  await expect.poll(waiting).toBe(2)
  release()
  const texts = await Promise.all([first, ...others])
  expect(sizes).toEqual([1, 2])
  expect(texts).toEqual([await post('ask'), await post(QUESTION), await post('how many objects are there?')])
  await own.close()
})

test('pictures are fetched by address where the server was told to', async () => {
  const bytes = await readFile(image)
  const site = createServer((request, response) => {
    response.writeHead(request.url === '/a.png' ? 200 : 404).end(request.url === '/a.png' ? bytes : '')
  })
  await new Promise<void>((resolve) => site.listen(0, '127.0.0.1', resolve))
  const at = `http://127.0.0.1:${(site.address() as AddressInfo).port}`
  const { server, client } = await startServer(['--model', TINY, '--fetch-images'])
  const create = (url: string) =>
    client.chat.completions.create({ model: 'tiny', temperature: 0, messages: [ask(QUESTION, url)] })
  expect((await create(`${at}/a.png`)).choices).toEqual((await create(picture)).choices)
  await expect(create(`${at}/gone.png`)).rejects.toMatchObject({ status: 400, code: 'invalid_image_url' })
  server.kill('SIGTERM')
  expect((await server.ended).code).toBe(143)
  await new Promise((resolve) => site.close(resolve))
})

describe('a run', () => {
  let evolving: Program
  beforeAll(async () => {
    const run = ['--out', join(dir, 'run'), '--run', 'mine']
    evolving = startProgram(['evolve', '--json', '--steps', '100000', ...run, ...SMALL])
    await evolving.said('step')
  })
  afterAll(async () => {
    evolving.kill('SIGKILL')
    await evolving.ended
  })

  test('answers with its newest version, or with one that the name says, also without an image', async () => {
    const { server, client } = await startServer(['--run', join(dir, 'run')])
    const create = (model: string, url?: string) =>
      client.chat.completions.create({ model, temperature: 0, logprobs: true, messages: [ask(QUESTION, url)] })
    expect((await client.models.list()).data.map(({ id }) => id)).toEqual(expect.arrayContaining(['mine', 'mine@0']))
    expect((await create('mine', picture)).model).toMatch(/^mine@\d+$/)
    const base = await create('mine@0', picture)
    const { text, promptTokens } = await generate('--prompt', QUESTION, '--image', image)
    expect([base.model, base.choices[0]!.message.content]).toEqual(['mine@0', text])
    expect(base.usage!.prompt_tokens).toBe(promptTokens)
    expect((await create('mine@0')).choices[0]!.message.content).toBe((await generate('--prompt', QUESTION)).text)
    await expect.poll(async () => (await create('mine')).model, { timeout: 60_000 }).toMatch(/@([8-9]|\d\d+)$/)
    await expect(create('mine@2')).rejects.toMatchObject({ status: 404, message: expect.stringContaining('not kept') })
    await expect(create('mine@99999999')).rejects.toMatchObject({ status: 404, code: 'model_not_found' })
    const stream = await client.chat.completions.create({
      ...{ model: 'mine@0', temperature: 0, messages: [ask(QUESTION, picture)], stream: true },
    })
    let streamed = ''
    for await (const { choices } of stream) streamed += choices[0]?.delta.content ?? ''
    expect(streamed).toBe(text)
    server.kill('SIGINT')
    expect((await server.ended).code).toBe(130)
  })

  test('that nobody works on is named, and so is a wrong call', async () => {
    evolving.kill('SIGINT')
    await evolving.ended
    const audit = await program(['audit', join(dir, 'run'), '--json'])
    expect(audit.code, audit.stdout).toBe(0)
    const { code, stderr } = await program(['serve', '--run', join(dir, 'run')])
    expect([code, stderr]).toEqual([1, expect.stringContaining('nobody works on the run')])
    expect((await program(['serve'])).stderr).toContain('give either --model or --run')
  })
})
