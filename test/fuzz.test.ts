/** Files of strangers: thousands of damaged and hostile checkpoints and pictures, none of which may do any harm. */
import { execFileSync } from 'node:child_process'
import { cp, mkdir, mkdtemp, readFile, rm, symlink, truncate, writeFile } from 'node:fs/promises'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import sharp from 'sharp'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { loadChatTemplate, renderChat } from '../models/io/chat-template.ts'
import { decodeImage } from '../models/io/image.ts'
import { openCheckpoint, readSafetensors, writeSafetensors } from '../models/io/safetensors.ts'
import { loadTokenizer } from '../models/io/tokenizer.ts'
import { f32 } from '../models/tensor.ts'
import { openModel } from '../models/vlm/open.ts'
import { loadSmolVlmConfig } from '../models/vlm/smolvlm/config.ts'
import { loadSmolVlmProcessor } from '../models/vlm/smolvlm/processor.ts'
import { smolVlm } from '../models/vlm/smolvlm/family.ts'
import { expectedWeights } from '../models/vlm/smolvlm/weights.ts'
import { checkTensors, storedNames } from '../models/vlm/stored-weights.ts'
import { readOrRefuse, type Outcome } from './support/clear-failure.ts'
import { goldens } from './support/goldens.ts'

const whole = join(goldens, 'smolvlm/tiny64/checkpoint')
let dir: string
beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'visplay-fuzz-'))
  await cp(whole, join(dir, 'model'), { recursive: true })
})
afterAll(async () => {
  await rm(dir, { recursive: true, force: true })
  expect(tried, 'inputs of all tests').toBeGreaterThanOrEqual(5000)
  const peakMb = process.resourceUsage().maxRSS / 2 ** 10
  expect(peakMb, 'peak memory of this process in MiB').toBeLessThan(1500)
})

let tried = 0
function attempt(name: string, load: () => unknown): Promise<Outcome> {
  tried++
  return readOrRefuse(name, load)
}

/** As many inputs as asked for; each is read or refused. Some must be refused, or the generator is of no use. */
async function fuzz<T>(runs: number, input: fc.Arbitrary<T>, one: (value: T) => Promise<Outcome>): Promise<void> {
  let refused = 0
  await fc.assert(
    fc.asyncProperty(input, async (value) => {
      if ((await one(value)) === 'refused') refused++
    }),
    { numRuns: runs },
  )
  expect(refused).toBeGreaterThan(0)
}

/** A safetensors file of any header, data and claimed length. */
function container(header: string | Uint8Array, data: Uint8Array = new Uint8Array(0), length?: bigint): Buffer {
  const json = Buffer.from(header)
  const prefix = Buffer.alloc(8)
  prefix.writeBigUInt64LE(BigInt.asUintN(64, length ?? BigInt(json.length)))
  return Buffer.concat([prefix, json, data])
}

/** Changes of bytes: values, a cut, an insertion. */
const damage = fc.record({
  edits: fc.array(fc.tuple(fc.nat(), fc.nat(255)), { maxLength: 6 }),
  cut: fc.option(fc.nat(), { freq: 3 }),
  insert: fc.option(fc.tuple(fc.nat(), fc.uint8Array({ maxLength: 20 })), { freq: 4 }),
})
type Damage = typeof damage extends fc.Arbitrary<infer D> ? D : never
function damaged(bytes: Uint8Array, { edits, cut, insert }: Damage): Buffer {
  let copy = Buffer.from(bytes)
  for (const [at, value] of edits) copy[at % copy.length] = value
  if (insert) {
    const at = insert[0] % copy.length
    copy = Buffer.concat([copy.subarray(0, at), insert[1], copy.subarray(at)])
  }
  return cut === null ? copy : copy.subarray(0, cut % (copy.length + 1))
}

/** Values that programs trip over, and any JSON. */
const odd = fc.oneof(
  fc.constantFrom<unknown>(0, -1, 1.5, 1e12, 2 ** 31, 2 ** 53, 1e308, -0, '', 'x'.repeat(10_000), null, true, []),
  fc.constantFrom<unknown>({}, [[]], { __proto__: null }, '\u0000\n\u2028', '../../etc/passwd', [1, 2], [-1, 1e9]),
  fc.jsonValue({ maxDepth: 3 }),
)
type Json = { [key: string]: unknown }
/** Replaces one value, anywhere in a JSON document, or adds a key that pollutes prototypes. */
const change = fc.record({ at: fc.nat(), value: odd, how: fc.constantFrom('replace', 'drop', 'pollute') })
type Change = typeof change extends fc.Arbitrary<infer C> ? C : never
function changed(text: string, changes: readonly Change[]): string {
  const document = JSON.parse(text) as Json
  for (const { at, value, how } of changes) {
    const places: [Json, string][] = []
    const open: Json[] = [document]
    for (let node = open.pop(); node; node = open.pop()) {
      for (const [key, inner] of Object.entries(node)) {
        places.push([node, key])
        if (typeof inner === 'object' && inner !== null) open.push(inner as Json)
      }
    }
    if (places.length === 0) break
    const [parent, key] = places[at % places.length]!
    if (how === 'replace') setOwn(parent, key, value)
    else if (how === 'drop') Reflect.deleteProperty(parent, key)
    else setOwn(parent, '__proto__', { polluted: true })
  }
  return JSON.stringify(document)
}
/** An own property of any name; an assignment to `__proto__` would not make one. */
function setOwn(parent: Json, key: string, value: unknown): void {
  Object.defineProperty(parent, key, { value, enumerable: true, configurable: true, writable: true })
}
const changes = fc.array(change, { minLength: 1, maxLength: 3 })

describe('safetensors', () => {
  let bytes: Buffer
  let file: string
  beforeAll(async () => {
    file = join(dir, 'damaged.safetensors')
    await writeSafetensors(file, { a: f32([1, 2, 3, 4, 5, 6], [2, 3]), b: f32([7], []), 'c.d': f32([], [0, 5]) })
    bytes = await readFile(file)
  })
  const read = async (content: Uint8Array) => {
    await writeFile(file, content)
    return attempt(file, () => readSafetensors(file))
  }

  it('is cut at every byte', async () => {
    for (let end = 0; end < bytes.length; end++) expect(await read(bytes.subarray(0, end))).toBe('refused')
    expect(await read(bytes)).toBe('read')
  })

  it('is damaged anywhere', () => fuzz(1500, damage, (d) => read(damaged(bytes, d))))

  it('has a header of any entries', async () => {
    const number = fc.oneof(
      fc.integer({ min: -4, max: 40 }),
      fc.constantFrom(2 ** 31, 2 ** 53 - 1, 2 ** 53, 1e300, 0.5),
    )
    const entry = fc.record(
      {
        dtype: fc.oneof(fc.constantFrom('F32', 'BF16', 'F16', 'I64', 'BOOL', 'F8_E4M3', 'F4', '__proto__'), odd),
        shape: fc.oneof(fc.array(number, { maxLength: 4 }), odd),
        data_offsets: fc.oneof(fc.tuple(number, number), odd),
      },
      { requiredKeys: [] },
    )
    const name = fc.oneof(fc.constantFrom('a', '__proto__', 'constructor', '__metadata__', 'x\ny\u0000'), fc.string())
    const header = fc.array(fc.tuple(name, fc.oneof({ weight: 6, arbitrary: entry }, { weight: 1, arbitrary: odd })))
    await fuzz(900, header, (entries) =>
      read(container(`{${entries.map(([k, v]) => `${JSON.stringify(k)}:${JSON.stringify(v)}`).join()}}`, bytes)),
    )
  })

  it.each([0n, 1n, -1n, 2n ** 63n, 2n ** 64n - 8n, 2n ** 32n, 100_000_000n, 8_388_609n, 1000n])(
    'claims a header of %d bytes',
    async (length) => {
      expect(await read(container('{}', bytes, length))).toBe('refused')
    },
  )

  const tensor = (fields: object) =>
    JSON.stringify({ t: { dtype: 'F32', shape: [2], data_offsets: [0, 8], ...fields } })
  it.each([
    ['a product that overflows', container(tensor({ shape: [2 ** 32, 2 ** 32, 2 ** 32] }), new Uint8Array(8))],
    ['terabytes', container(tensor({ shape: [2 ** 40], data_offsets: [0, 2 ** 42] }), new Uint8Array(8))],
    ['a wrong length', container(tensor({ shape: [3] }), new Uint8Array(8))],
    ['offsets backwards', container(tensor({ data_offsets: [8, 0] }), new Uint8Array(8))],
    ['a hundred thousand dimensions', container(tensor({ shape: Array<number>(100_000).fill(1) }), new Uint8Array(8))],
    ['a long name', container(JSON.stringify({ ['n'.repeat(2 ** 20)]: 1 }))],
    ['one name twice', container(`{"t":${tensor({}).slice(5, -1)},${tensor({}).slice(1)}`.replace('[0,8]', '[8,16]'))],
    ['JSON without end', container('['.repeat(2 ** 20))],
    ['deep JSON', container('{"t":'.repeat(2 ** 18) + '1' + '}'.repeat(2 ** 18))],
    ['no UTF-8', container(Uint8Array.of(0x7b, 0x22, 0xff, 0xfe, 0x22, 0x3a, 0x31, 0x7d))],
    ['a lone surrogate', container('{"\\ud800":1}')],
  ])('has %s', async (_, content) => {
    expect(await read(content)).toBe('refused')
  })

  it('is a folder, a pipe or a device', async () => {
    const folder = join(dir, 'folder.safetensors')
    await mkdir(folder)
    expect(await attempt(folder, () => readSafetensors(folder))).toBe('refused')
    if (process.platform === 'win32') return
    const pipe = join(dir, 'pipe.safetensors')
    execFileSync('mkfifo', [pipe])
    for (const path of [pipe, '/dev/zero']) {
      expect(await attempt(path, () => readSafetensors(path))).toBe('refused')
    }
  })
})

describe('an index of shards', () => {
  it('names any file', async () => {
    const folder = join(dir, 'shards')
    await mkdir(folder)
    await writeSafetensors(join(folder, 'one.safetensors'), { a: f32([1], [1]) })
    await symlink('/etc/passwd', join(folder, 'link.safetensors'))
    const index = join(folder, 'model.safetensors.index.json')
    const open = async (text: string) => {
      await writeFile(index, text)
      return attempt(folder, async () => (await openCheckpoint(folder)).close())
    }
    const path = fc.oneof(
      fc.constantFrom('one.safetensors', 'link.safetensors', '../one.safetensors', '/etc/passwd', '..', '.', ''),
      fc.constantFrom(
        'one.safetensors\u0000',
        'C:\\x.safetensors',
        `${'n'.repeat(5000)}.safetensors`,
        './one.safetensors',
      ),
      fc.constantFrom('two.safetensors', '%2e%2e%2fone.safetensors', '~/one.safetensors', 'a\nb.safetensors'),
      fc.string(),
    )
    const key = fc.constantFrom('a', 'b', '__proto__', 'constructor')
    await fuzz(300, fc.array(fc.tuple(key, path), { maxLength: 3 }), (entries) =>
      open(`{"weight_map":{${entries.map((e) => e.map((part) => JSON.stringify(part)).join(':')).join()}}}`),
    )
    await fuzz(100, fc.json(), open)
    expect(await open('{"weight_map":{"a":"link.safetensors"}}')).toBe('refused')
    expect(await open('{"weight_map":{"a":"one.safetensors"}}')).toBe('read')
  })
})

/** A copy of the whole checkpoint in which one file is another. */
async function withFile<T>(
  name: string,
  content: string | Uint8Array,
  job: (folder: string) => Promise<T>,
): Promise<T> {
  const folder = join(dir, 'model')
  await writeFile(join(folder, name), content)
  try {
    return await job(folder)
  } finally {
    await cp(join(whole, name), join(folder, name))
  }
}
const text = (name: string) => readFile(join(whole, name), 'utf8')
const prompt = (folder: string) => async () => {
  const processor = await loadSmolVlmProcessor(folder, await loadSmolVlmConfig(folder))
  processor.prompts.splitPrompt('What is it?', { rows: 0, cols: 0, features: processor.imageSeqLen })
}

describe('configuration', () => {
  const fits = async (folder: string) => {
    const checkpoint = await openCheckpoint(folder)
    try {
      checkTensors(expectedWeights(await loadSmolVlmConfig(folder)), checkpoint, storedNames(smolVlm, checkpoint))
    } finally {
      await checkpoint.close()
    }
  }

  it('has any value anywhere', async () => {
    const original = await text('config.json')
    await fuzz(1000, changes, (list) =>
      withFile('config.json', changed(original, list), (folder) => attempt(folder, () => fits(folder))),
    )
    expect('polluted' in {}).toBe(false)
  })

  const sizes = [
    'num_hidden_layers',
    'num_attention_heads',
    'vocab_size',
    'hidden_size',
    'intermediate_size',
    'head_dim',
  ]
  it.each(sizes)('has an impossible %s', async (key) => {
    for (const value of [0, -1, 0.5, 1e9, 1e12, 2 ** 53, 1e308, '12', [1], {}]) {
      const config = JSON.parse(await text('config.json')) as { text_config: Json }
      config.text_config[key] = value
      const outcome = withFile('config.json', JSON.stringify(config), (f) => attempt(f, () => fits(f)))
      expect(await outcome, `${key} ${JSON.stringify(value)}`).toBe('refused')
    }
  })

  it('of the processor has any value anywhere', async () => {
    const original = await text('processor_config.json')
    await fuzz(500, changes, (list) =>
      withFile('processor_config.json', changed(original, list), (folder) => attempt(folder, prompt(folder))),
    )
  })

  it.each(['[', '{"a":'.repeat(1e5), 'null', '', '\u0000', '[]', '"x"', '1e999', '{"model_type":"llava"}', '{} {}'])(
    'is %j',
    async (content) => {
      expect(await withFile('config.json', content.slice(0, 2 ** 20), (f) => attempt(f, () => fits(f)))).toBe('refused')
    },
  )

  it('is no UTF-8, or gigabytes', async () => {
    const latin = Buffer.from([0x7b, 0xff, 0x7d])
    expect(await withFile('config.json', latin, (f) => attempt(f, () => fits(f)))).toBe('refused')
    const outcome = withFile('config.json', '{', async (folder) => {
      await truncate(join(folder, 'config.json'), 2 ** 33)
      return attempt(folder, () => fits(folder))
    })
    expect(await outcome).toBe('refused')
  })
})

describe('tokenizer', () => {
  it('has any value anywhere', async () => {
    const original = await text('tokenizer.json')
    await fuzz(250, changes, (list) =>
      withFile('tokenizer.json', changed(original, list), (folder) => attempt(folder, prompt(folder))),
    )
    const parts = JSON.stringify({ ...(JSON.parse(original) as Json), model: undefined, added_tokens: undefined })
    await fuzz(250, changes, (list) => {
      const mutated = { ...(JSON.parse(original) as Json), ...(JSON.parse(changed(parts, list)) as Json) }
      return withFile('tokenizer.json', JSON.stringify(mutated), (folder) => attempt(folder, prompt(folder)))
    })
  })

  it('has an expression that never ends', async () => {
    const json = JSON.parse(await text('tokenizer.json')) as Json
    json['pre_tokenizer'] = {
      type: 'Split',
      pattern: { Regex: '((([^\\d]+)+)+)+\\d$' },
      behavior: 'Isolated',
      invert: false,
    }
    const slow = withFile('tokenizer.json', JSON.stringify(json), (folder) =>
      attempt(folder, async () => (await loadTokenizer(folder)).encode(`${'a'.repeat(60)}!`)),
    )
    expect(await slow).toBe('refused')
  })

  it.each([
    ['ids without bound', (json: Json) => Object.assign((json['model'] as { vocab: Json }).vocab, { zz: 1e15 })],
    ['an added token far away', (json: Json) => (json['added_tokens'] as Json[]).push({ id: 2 ** 40, content: '<x>' })],
    ['no vocabulary', (json: Json) => Object.assign(json['model'] as Json, { vocab: null })],
    ['an expression that is none', (json: Json) => (json['normalizer'] = { type: 'Replace', pattern: { Regex: '(' } })],
  ])('has %s', async (_, edit) => {
    const json = JSON.parse(await text('tokenizer.json')) as Json
    edit(json)
    const outcome = withFile('tokenizer.json', JSON.stringify(json), (folder) => attempt(folder, prompt(folder)))
    expect(await outcome).toBe('refused')
  })
})

describe('chat template', () => {
  const file = 'chat_template.jinja'
  const render = (source: string) =>
    withFile(file, source, (folder) =>
      attempt(folder, async () =>
        renderChat(await loadChatTemplate(folder), [{ role: 'user', content: 'hi' }], { addGenerationPrompt: true }),
      ),
    )

  it('is damaged anywhere', async () => {
    const source = Buffer.from(await text(file))
    await fuzz(300, damage, (d) => withFile(file, damaged(source, d), (folder) => attempt(folder, prompt(folder))))
  })

  it.each([
    ['loops for ever', '{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}'],
    ['asks for a billion numbers', '{{ range(1000000000)|length }}'],
    ['counts to nowhere', '{{ range(0, 9, 0) }}'],
    [
      'doubles a text',
      '{% set n = namespace(s="ab") %}{% for i in range(60) %}{% set n.s = n.s ~ n.s %}{% endfor %}{{ n.s }}',
    ],
    ['writes 64 million letters', `{{ "a"|indent(${2 ** 26}, true) }}`],
    ['is deep', `{{ ${'('.repeat(50_000)}1${')'.repeat(50_000)} }}`],
    ['calls itself', '{% macro f(x) %}{{ f(x) }}{% endmacro %}{{ f(1) }}'],
    ['makes a function', '{{ messages.constructor.constructor("return process")() }}'],
    ['raises', '{{ raise_exception("first\nsecond") }}'],
    ['is long', ' '.repeat(2 ** 20 + 1)],
  ])('%s', async (_, source) => {
    expect(await render(source)).toBe('refused')
  })

  it('sees no globals', async () => {
    const names = [
      'process',
      'globalThis',
      'require',
      'fetch',
      '"".constructor',
      'messages.__proto__',
      'range.constructor',
    ]
    for (const name of names) {
      await withFile(file, `[{{ ${name} }}]`, async (folder) => {
        const shown = renderChat(await loadChatTemplate(folder), [], { addGenerationPrompt: false })
        expect(shown, name).toBe('[]')
      })
    }
  })
})

describe('weights', () => {
  const loaded = async (folder: string) => (await openModel(folder, { threads: 1 })).dispose()
  const variant = async (edit: (tensors: Record<string, ReturnType<typeof f32>>) => void) => {
    const tensors = { ...(await readSafetensors(join(whole, 'model.safetensors'))) } as Record<
      string,
      ReturnType<typeof f32>
    >
    edit(tensors)
    const file = join(dir, 'variant.safetensors')
    await writeSafetensors(file, tensors)
    return withFile('model.safetensors', await readFile(file), (folder) => attempt(folder, () => loaded(folder)))
  }
  const name = 'model.text_model.norm.weight'

  it.each([NaN, Infinity, -Infinity])('hold %s', async (value) => {
    const poison = (t: Record<string, ReturnType<typeof f32>>) =>
      (t[name] = f32(
        t[name]!.data.map(() => value),
        [64],
      ))
    expect(await variant(poison)).toBe('refused')
  })

  it('miss a tensor, have another shape, or more than needed', async () => {
    expect(await variant((t) => Reflect.deleteProperty(t, name))).toBe('refused')
    expect(await variant((t) => (t[name] = f32(new Float32Array(64), [8, 8])))).toBe('refused')
    expect(await variant((t) => (t['constructor'] = f32([NaN], [1])))).toBe('read')
  })

  it('are damaged anywhere', async () => {
    const bytes = await readFile(join(whole, 'model.safetensors'))
    await fuzz(100, damage, (d) =>
      withFile('model.safetensors', damaged(bytes, d), (folder) => attempt(folder, () => loaded(folder))),
    )
  })
})

describe('pictures', () => {
  const name = 'of-a-stranger'
  const decode = (bytes: Uint8Array) => attempt(name, () => decodeImage(bytes, { name }))
  const noise = () =>
    sharp(
      Uint8Array.from({ length: 24 * 16 * 3 }, (_, i) => (i * 2654435761) >>> 24),
      {
        raw: { width: 24, height: 16, channels: 3 },
      },
    )
  const formats: Readonly<Record<string, () => Promise<Buffer>>> = {
    png: () => noise().png().toBuffer(),
    'interlaced png': () => noise().png({ progressive: true }).toBuffer(),
    '16-bit png': () => noise().toColourspace('rgb16').png().toBuffer(),
    jpeg: () =>
      noise()
        .withExif({ IFD0: { Copyright: 'x'.repeat(50) } })
        .jpeg()
        .toBuffer(),
    'cmyk jpeg': () => noise().toColourspace('cmyk').jpeg().toBuffer(),
    webp: () => noise().webp().toBuffer(),
    gif: () => noise().gif().toBuffer(),
    tiff: () => noise().tiff().toBuffer(),
    avif: () => noise().avif({ effort: 0 }).toBuffer(),
  }

  it.each(Object.keys(formats))('%s: cut, and damaged anywhere', async (format) => {
    const bytes = await formats[format]!()
    expect(await decode(bytes)).toBe('read')
    for (let n = 0; n < 16; n++)
      expect(await decode(bytes.subarray(0, Math.floor((bytes.length * n) / 40)))).toBe('refused')
    await fuzz(80, damage, (d) => decode(damaged(bytes, d)))
  })

  it('are random bytes', () => fuzz(300, fc.uint8Array({ maxLength: 400 }), decode))

  it('have giant sizes in a few bytes', async () => {
    const png = Buffer.from(await formats['png']!())
    png.writeUInt32BE(2 ** 31 - 1, 16)
    png.writeUInt32BE(2 ** 31 - 1, 20)
    const gif = Buffer.from(await formats['gif']!())
    gif.writeUInt32LE(0xffffffff, 6)
    const flat = { width: 13_500, height: 13_500, channels: 3, background: 'red' } as const
    const bomb = await sharp({ create: flat, limitInputPixels: false }).toColourspace('b-w').jpeg().toBuffer()
    expect(bomb.length).toBeLessThan(4 * 10 ** 6)
    for (const [kind, bytes] of Object.entries({ png, bomb })) expect(await decode(bytes), kind).toBe('refused')
    // The screen of a GIF is only a hint: this one has the size of its frame.
    expect(await decodeImage(gif)).toMatchObject({ width: 24, height: 16 })
    png.writeUInt32BE(0, 16)
    expect(await decode(png), 'no width').toBe('refused')
  })

  it('are animated: the first frame counts', async () => {
    const frames = Buffer.alloc(8 * 80 * 3, 90)
    const gif = await sharp(frames, { raw: { width: 8, height: 80, channels: 3, pageHeight: 8 } })
      .gif()
      .toBuffer()
    expect(await decodeImage(gif)).toMatchObject({ width: 8, height: 8 })
  })

  it('are drawings or pages: refused, and nothing is fetched', async () => {
    let hits = 0
    const server = createServer((_, response) => {
      hits++
      response.end()
    }).listen(0, '127.0.0.1')
    await new Promise((resolve) => server.once('listening', resolve))
    const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/x.png`
    const use = Array.from({ length: 20 }, (_, i) => `<g id="u${i + 1}">${`<use href="#u${i}"/>`.repeat(10)}</g>`)
    const drawings = [
      `<svg xmlns="http://www.w3.org/2000/svg" width="8" height="8"><image href="${url}" width="8" height="8"/></svg>`,
      `<?xml version="1.0"?><!DOCTYPE svg [<!ENTITY x SYSTEM "${url}">]><svg width="8" height="8">&x;</svg>`,
      `\ufeff \n<svg width="8" height="8"><defs><g id="u0"/>${use.join('')}</defs><use href="#u20"/></svg>`,
      `<!--${'x'.repeat(900)}--><s:svg xmlns:s="http://www.w3.org/2000/svg" width="9999" height="9999"/>`,
      `<!DOCTYPE html><html><img src="${url}"></html>`,
    ]
    for (const drawing of drawings) expect(await decode(Buffer.from(drawing))).toBe('refused')
    server.close()
    expect(hits).toBe(0)
  })
})
