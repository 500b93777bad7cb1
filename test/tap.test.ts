/** Whoever listens sees the whole loop: a plain NATS client and the published schemas, nothing else of visplay. */
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { connect } from '@nats-io/transport-node'
import { Ajv2020 } from 'ajv/dist/2020.js'
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest'
import { connectNet } from '../bus/nats/net.ts'
import { startServer, type NatsServer } from '../bus/nats/server.ts'
import { jsonSchemas } from '../bus/schema-doc.ts'
import { configToYaml, loadConfig } from '../configs/load.ts'
import type { TapLine } from '../runners/tap/decode.ts'
import { program, startProgram } from './support/program.ts'
import { SMALL_LEARNING as SMALL } from './support/small-run.ts'

/** A message as anyone may read it. */
interface Heard {
  readonly subject: string
  readonly message: {
    readonly schema: string
    readonly traceparent: string
    readonly data: Readonly<Record<string, unknown>>
  }
}

let dir: string
let server: NatsServer
const heard: Heard[] = []

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'visplay-tap-'))
  server = await startServer({ storeDir: join(dir, 'nats') })
  const client = await connect({ servers: server.url })
  client.subscribe('visplay.>', { callback: (_, m) => void heard.push({ subject: m.subject, message: m.json() }) })
  await client.flush()
  const args = ['--run', 'tapped', '--steps', '2', '--nats', server.url, '--out', join(dir, 'run')]
  const { code, stderr } = await program(['evolve', '--json', ...args, ...SMALL])
  expect(code, stderr).toBe(0)
  await client.drain()
})
afterAll(async () => {
  await server?.stop()
  await rm(dir, { recursive: true, force: true })
})

/** The data of the message with this subject after `visplay.tapped.`. */
function said<T>(subject: string): T & Heard['message'] {
  const found = heard.find((h) => h.subject === `visplay.tapped.${subject}`)
  if (!found) throw new Error(`nobody said ${subject}`)
  return { ...(found.message.data as T), ...found.message }
}

const dataOf = <T>(prefix: string): T[] =>
  heard.filter((h) => h.subject.startsWith(`visplay.tapped.${prefix}.`)).map((h) => h.message.data as T)

/** The task that has an item, and what it says about it. */
function taskOf(schema: string, items: string, is: (item: Item) => boolean): Item & { task: Heard['message'] } {
  for (const { message } of heard) {
    if (message.schema !== schema) continue
    const item = (message.data[items] as Item[]).find(is)
    if (item) return { ...item, task: message }
  }
  throw new Error(`no ${schema} has the item`)
}
interface Item {
  readonly id?: string
  readonly group?: string
  readonly image: string
  readonly silver?: string
}

const traceOf = ({ traceparent }: { readonly traceparent: string }): string => traceparent.split('-')[1]!

describe('everything under visplay.>', () => {
  test('parses by the published JSON Schema that it names, and its subject names the same', () => {
    const ajv = new Ajv2020({ strict: true, validateFormats: false })
    const validators = new Map(Object.entries(jsonSchemas()).map(([name, schema]) => [name, ajv.compile(schema)]))
    expect(heard.length).toBeGreaterThan(100)
    for (const { subject, message } of heard) {
      const validate = validators.get(message.schema)
      expect(validate, `${subject} names the schema ${message.schema}`).toBeDefined()
      expect(validate!(message), `${subject}: ${ajv.errorsText(validate!.errors)}`).toBe(true)
      const [, run, family, ...rest] = subject.split('.')
      expect(run).toBe('tapped')
      const named = family === 'live' ? rest.at(-1) : rest.slice(0, -1).join('.')
      expect(named, subject).toBe(message.schema)
    }
  })

  test('every kind of work, every event of an undisturbed run, and what the actors do', () => {
    const schemas = [...new Set(heard.map((h) => h.message.schema))].toSorted()
    const work = ['judge.groups', 'model.generate', 'model.gradient', 'questioner.images', 'reasoner.questions']
    const events = ['answers', 'eval', 'generated', 'gradient', 'image', 'questions', 'step', 'verdict', 'version']
    expect(schemas).toEqual(expect.arrayContaining([...work, ...events, 'heartbeat', 'transition']))
    expect(schemas).not.toEqual(expect.arrayContaining(['dead']))
  })

  test('every trained group can be followed by its ids from the image to the version', () => {
    const versions = dataOf<{ weights: number; consumed: string[] }>('log.version')
    expect(versions.map((v) => v.weights)).toEqual([0, 1, 2])
    const groups = versions.flatMap(({ weights, consumed }) => consumed.map((group) => ({ weights, group })))
    const answered = groups.filter(({ group }) => group.includes('-q'))
    expect(answered.length).toBeGreaterThan(0)
    for (const { weights, group } of answered) {
      const imageTask = group.slice(0, group.indexOf('-q'))
      const { task, image } = taskOf('questioner.images', 'images', ({ id }) => id === imageTask)
      const { questions, ...asked } = said<{ image: string; questions: { group: string; silver: string }[] }>(
        `log.questions.${imageTask}`,
      )
      const { task: work, ...question } = taskOf('reasoner.questions', 'questions', (item) => item.group === group)
      const answers = said<{ step: number; completions: { id: string; text: string }[] }>(`log.answers.${group}`)
      const request = heard.find(({ message: { schema, data } }) => {
        const prompts = [data, ...((data['also'] ?? []) as (typeof data)[])]
        return schema === 'model.generate' && prompts.some(({ key }) => key === `answer-${group}`)
      })!
      const reply = said<{ weights: number; completions: { id: string; text: string }[] }>(
        `log.generated.${request.subject.slice(request.subject.lastIndexOf('.') + 1)}`,
      )
      const replied = reply.completions.filter(({ id }) => id.startsWith(`answer-${group}-`))
      const samples = request.message.data['samples']
      const verdict = said<{ reasoner: { rewards: number[]; keep: boolean } }>(`log.verdict.${group}`)
      const step = said<{ weights: number; groups: string[] }>(`log.step.s${weights}`)
      expect([image, asked.image]).toEqual([question.image, question.image])
      expect(questions.find((q) => q.group === group)?.silver).toBe(question.silver)
      expect(answers.completions).toEqual(replied)
      expect([answers.completions.length, verdict.reasoner.rewards.length]).toEqual([samples, samples])
      expect(verdict.reasoner.keep).toBe(true)
      expect([task.data['step'], answers.step, step.weights, reply.weights + 1]).toEqual([
        weights,
        weights,
        weights,
        weights,
      ])
      expect(step.groups).toContain(group)
      // One trace follows the image through all actors.
      const traces = [asked, work, answers, request.message, reply, verdict].map(traceOf)
      expect(new Set(traces), group).toEqual(new Set([traceOf(task)]))
    }
  })
})

async function tap(...args: string[]): Promise<TapLine[]> {
  const { code, stdout, stderr } = await program(['tap', '--json', ...args])
  expect(code, stderr).toBe(0)
  const lines = stdout.split('\n').slice(0, -1)
  return lines.map((line) => JSON.parse(line) as TapLine)
}
const subjectsOf = (lines: readonly TapLine[]) => lines.map((line) => ('subject' in line ? line.subject : ''))

describe('visplay tap', () => {
  const past = ['--nats', 'URL', '--run', 'tapped', '--since']
  const since = (...args: string[]) => tap(...[...past, ...args].map((arg) => (arg === 'URL' ? server.url : arg)))

  test('reads the whole log in order, each record checked', async () => {
    const lines = await since('start')
    expect(lines.filter((line) => 'problem' in line)).toEqual([])
    const seqs = lines.map((line) => ('seq' in line ? line.seq : null))
    expect(seqs).toEqual(seqs.map((_, i) => i + 1))
    const live = new Set(heard.map((h) => h.subject).filter((subject) => subject.includes('.log.')))
    expect(new Set(subjectsOf(lines))).toEqual(live)
  })

  test('filters by subject, by sequence number and by trace', async () => {
    const steps = await since('start', 'log.step.*')
    expect(subjectsOf(steps)).toEqual(['visplay.tapped.log.step.s1', 'visplay.tapped.log.step.s2'])
    const [, last] = steps as { seq: number }[]
    expect(subjectsOf(await since(String(last!.seq), 'log.step.*'))).toEqual(['visplay.tapped.log.step.s2'])
    const traced = subjectsOf(await since('start', '--trace', 's1-i2')).map((s) => s.split('.').slice(3).join('.'))
    expect(traced).toEqual(expect.arrayContaining(['questions.s1-i2', 'answers.s1-i2-q0', 'verdict.s1-i2-q0']))
    // Its task had a second image, which shares the requests.
    expect(traced).toEqual(expect.arrayContaining(['generated.ask-s1-i2to3', 'generated.answer-s1-i2to3']))
    expect(traced.filter((s) => /s1-i[013]|s2-/.test(s))).toEqual([])
  })

  test('follows what is said now until Ctrl-C, and shows what does not fit', async () => {
    const tapping = startProgram(['tap', '--json', '--nats', server.url, '--run', 'tapped'])
    const client = await connect({ servers: server.url })
    const said = setInterval(() => client.publish('visplay.tapped.live.judge.x.heartbeat', '{"no": "envelope"}'), 50)
    await vi.waitFor(() => expect(tapping.events().length).toBeGreaterThan(0), 20_000)
    clearInterval(said)
    tapping.kill('SIGINT')
    expect((await tapping.ended).code).toBe(130)
    expect(tapping.events()[0]).toMatchObject({
      seq: null,
      problem: expect.stringMatching(/not an envelope/) as string,
    })
    await client.close()
  })

  test('reads a run that has ended, more than once', async () => {
    const folder = join(dir, 'ended')
    await mkdir(folder)
    await writeFile(join(folder, 'config.yaml'), configToYaml(loadConfig({ sets: ['run=ended'] })))
    const own = await startServer({ storeDir: join(folder, 'nats') })
    const net = await connectNet(own.access, 'ended')
    const bus = net.connect('judge.1')
    // Too long for a message: it travels as a blob.
    const reasons = ['short', 'long '.repeat(100_000)]
    for (const [i, reason] of reasons.entries())
      await bus.append('dropped', `g${i}`, { step: 1, group: `g${i}`, reason })
    await net.close()
    await own.stop()
    for (let again = 0; again < 2; again++) {
      const lines = (await tap('--run', folder, '--since', 'start')) as { data: { reason: string } }[]
      expect(lines.map((line) => line.data.reason)).toEqual(reasons)
    }
  })

  test('a run that is not there and a wrong filter are one line each', async () => {
    const gone = await program(['tap', '--nats', server.url, '--run', 'gone'])
    expect([gone.code, gone.stderr]).toEqual([1, `visplay: the NATS server at ${server.url} has no run "gone"\n`])
    const wrong = await program(['tap', 'verdict', '--nats', server.url, '--run', 'tapped'])
    expect([wrong.code, wrong.stderr]).toEqual([
      2,
      'visplay: the filter "verdict" begins with none of task, log, live, * and >\n',
    ])
  })
})
