import { createHash } from 'node:crypto'
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { gzipSync } from 'node:zlib'
import fc from 'fast-check'
import sharp from 'sharp'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { CheckpointError } from '../models/io/checkpoint-error.ts'
import { loadChatTemplate, renderChat } from '../models/io/chat-template.ts'
import { f16ToF32 } from '../models/io/float16.ts'
import { decodeImage, ImageError } from '../models/io/image.ts'
import { resize, type Filter } from '../models/io/pil-resize.ts'
import { reservedNames } from '../models/io/safetensors-header.ts'
import { assertFinite, openCheckpoint, readSafetensors, writeSafetensors } from '../models/io/safetensors.ts'
import { loadTokenizer } from '../models/io/tokenizer.ts'
import { f32, sizeOf, type HostTensor, type TensorMap } from '../models/tensor.ts'
import { goldenCases, goldenJson, goldens, smolVlmVariants } from './support/goldens.ts'

let dir: string
beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'visplay-io-'))
})
afterAll(() => rm(dir, { recursive: true }))

/** A file from a header and data, as damaged as the test wants it. */
async function fileOf(name: string, header: unknown, data: Uint8Array, length?: bigint): Promise<string> {
  const json = Buffer.from(typeof header === 'string' ? header : JSON.stringify(header))
  const prefix = Buffer.alloc(8)
  prefix.writeBigUInt64LE(length ?? BigInt(json.length))
  const file = join(dir, name)
  await writeFile(file, Buffer.concat([prefix, json, data]))
  return file
}

const tensorArbitrary: fc.Arbitrary<HostTensor> = fc
  .tuple(
    fc.constantFrom('float32', 'int32', 'int64', 'int8', 'uint8', 'bool'),
    fc.array(fc.integer({ min: 0, max: 4 }), { maxLength: 3 }),
    fc.integer(),
  )
  .map(([dtype, dims, seed]): HostTensor => {
    const values = Array.from({ length: sizeOf(dims) }, (_, i) => Math.imul(seed + i, 2654435761) | 0)
    switch (dtype) {
      case 'float32':
        return { dtype, dims, data: Float32Array.from(values, (v) => v / 7) }
      case 'int32':
        return { dtype, dims, data: Int32Array.from(values) }
      case 'int64':
        return { dtype, dims, data: BigInt64Array.from(values, (v) => BigInt(v) * 12345678901n) }
      case 'int8':
        return { dtype, dims, data: Int8Array.from(values) }
      case 'uint8':
        return { dtype, dims, data: Uint8Array.from(values) }
      case 'bool':
        return { dtype, dims, data: Uint8Array.from(values, (v) => v & 1) }
    }
  })

describe('safetensors', () => {
  it('reads back what it wrote', async () => {
    const names = fc.string().filter((name) => !reservedNames.has(name))
    await fc.assert(
      fc.asyncProperty(
        fc.dictionary(names, tensorArbitrary, { maxKeys: 6, noNullPrototype: true }),
        async (tensors) => {
          const file = join(dir, 'round-trip.safetensors')
          await writeSafetensors(file, tensors)
          expect(await readSafetensors(file)).toEqual(tensors)
        },
      ),
      { numRuns: 60 },
    )
    expect((await readdir(dir)).filter((name) => name.endsWith('.tmp'))).toEqual([])
  })

  it.each([...reservedNames])('refuses a tensor named %s', async (name) => {
    const tensors = Object.fromEntries([[name, f32([1], [1])]])
    await expect(writeSafetensors(join(dir, 'reserved.safetensors'), tensors)).rejects.toThrow('reserved')
  })

  it('writes the bytes that the reference implementation writes', async () => {
    for (const name of ['smolvlm/tiny64/cases/rgba.safetensors', 'smolvlm/tiny64/checkpoint/model.safetensors']) {
      const original = join(goldens, name)
      const copy = join(dir, 'copy.safetensors')
      await writeSafetensors(copy, await readSafetensors(original))
      expect(Buffer.compare(await readFile(copy), await readFile(original))).toBe(0)
    }
  })

  it('fails on a damaged file with nothing but a CheckpointError', async () => {
    const tensors: TensorMap = { a: f32([1, 2, 3, 4, 5, 6], [2, 3]), b: f32([7], []) }
    const whole = join(dir, 'whole.safetensors')
    await writeSafetensors(whole, tensors)
    const bytes = await readFile(whole)
    const damaged = join(dir, 'damaged.safetensors')
    const edit = fc.record({ at: fc.nat(bytes.length - 1), value: fc.nat(255) })
    await fc.assert(
      fc.asyncProperty(fc.array(edit, { maxLength: 4 }), fc.nat(bytes.length), async (edits, cut) => {
        const copy = Buffer.from(bytes)
        for (const { at, value } of edits) copy[at] = value
        await writeFile(damaged, cut % 3 === 0 ? copy.subarray(0, cut) : copy)
        await readSafetensors(damaged).catch((error: unknown) => expect(error).toBeInstanceOf(CheckpointError))
      }),
      { numRuns: 300 },
    )
    await fc.assert(
      fc.asyncProperty(fc.jsonValue(), async (header) => {
        const file = await fileOf('random.safetensors', header, new Uint8Array(8))
        await readSafetensors(file).catch((error: unknown) => expect(error).toBeInstanceOf(CheckpointError))
      }),
      { numRuns: 100 },
    )
  })

  const tensor = (begin: number, end: number, more: object = {}) => ({
    dtype: 'F32',
    shape: [(end - begin) / 4],
    data_offsets: [begin, end],
    ...more,
  })
  it.each<[what: string, header: unknown, bytes: number, message: RegExp]>([
    ['overlap', { a: tensor(0, 8), b: tensor(4, 12) }, 12, /tensor "b": its bytes overlap/],
    ['gap', { a: tensor(0, 4), b: tensor(8, 12) }, 12, /tensor "b": a gap of 4 bytes/],
    ['beyond the end', { a: tensor(0, 16) }, 8, /tensor "a": truncated/],
    ['bytes left over', { a: tensor(0, 4) }, 8, /4 bytes after the last tensor/],
    ['unknown dtype', { a: tensor(0, 4, { dtype: 'F31' }) }, 4, /tensor "a": unknown dtype "F31"/],
    ['prototype as dtype', { a: tensor(0, 4, { dtype: 'toString' }) }, 4, /unknown dtype "toString"/],
    ['unsupported dtype', { a: tensor(0, 4, { dtype: 'U32' }) }, 4, /dtype U32 is not supported/],
    ['length and shape differ', { a: tensor(0, 8, { shape: [3] }) }, 8, /needs 12 bytes, the header gives it 8/],
    ['negative offset', { a: tensor(-4, 0) }, 4, /tensor "a".*data_offsets/s],
    ['not JSON', '{"a":', 0, /not valid JSON/],
    ['not an object', '[]', 0, /expected object/],
  ])('names the fault: %s', async (_, header, bytes, message) => {
    const file = await fileOf('fault.safetensors', header, new Uint8Array(bytes))
    const failure = readSafetensors(file)
    await expect(failure).rejects.toThrow(CheckpointError)
    await expect(failure).rejects.toThrow(message)
    await expect(failure).rejects.toMatchObject({ file })
  })

  it('limits what a header may claim', async () => {
    const huge = await fileOf('huge.safetensors', {}, new Uint8Array(0), 2n ** 63n)
    await expect(readSafetensors(huge)).rejects.toThrow('not a safetensors file')
    const long = await fileOf('long.safetensors', {}, new Uint8Array(0), 1000n)
    await expect(readSafetensors(long)).rejects.toThrow('truncated')
    await expect(readSafetensors(join(dir, 'none.safetensors'))).rejects.toThrow('no such file')
    await expect(readSafetensors(dir)).rejects.toThrow(CheckpointError)
  })

  it('keeps the old file when a write fails', async () => {
    const missing = join(dir, 'no-such-folder', 'x.safetensors')
    await expect(writeSafetensors(missing, {})).rejects.toThrow(/cannot be written/)
    const wrong = { a: { dtype: 'float32', dims: [3], data: new Float32Array(2) } } as const
    const file = join(dir, 'kept.safetensors')
    await writeSafetensors(file, { a: f32([1], [1]) })
    await expect(writeSafetensors(file, wrong)).rejects.toThrow('2 values do not fill [3]')
    expect((await readSafetensors(file))['a']?.data).toEqual(Float32Array.of(1))
  })

  it('widens halves exactly and finds values that are not finite', () => {
    const bits = [0x3c00, 0xbc00, 0x0001, 0x03ff, 0x0400, 0x3555, 0x7bff, 0x7c00, 0xfc00, 0x8000]
    const values = [1, -1, 2 ** -24, 1023 * 2 ** -24, 2 ** -14, 0.333251953125, 65504, Infinity, -Infinity, -0]
    expect([...f16ToF32(Uint16Array.from(bits))]).toEqual(values)
    expect(f16ToF32(Uint16Array.of(0x7e00))[0]).toBeNaN()
    assertFinite('w', f32([1, -2], [2]))
    expect(() => assertFinite('w', f32([1, NaN], [2]), 'x.safetensors')).toThrow(
      /x.safetensors, tensor "w": element 1 is NaN/,
    )
  })
})

describe('checkpoints', () => {
  it('reads single files lazily and widens bfloat16', async () => {
    const checkpoint = await openCheckpoint(join(goldens, 'smolvlm/idefics3/checkpoint'))
    const name = 'model.text_model.norm.weight'
    const info = checkpoint.info(name)
    expect(info).toMatchObject({ dtype: 'BF16', dims: [64], length: 128 })
    const raw = (await readFile(info.file)).subarray(info.offset, info.offset + info.length)
    const { data } = await checkpoint.readF32(name)
    const bits = new Uint32Array(data.buffer)
    for (let i = 0; i < 64; i++) expect(bits[i]).toBe(raw.readUInt16LE(2 * i) * 65536)
    expect(() => checkpoint.info('nothing')).toThrow(/tensor "nothing": no such tensor/)
    await checkpoint.close()
  })

  it('reads shards, and only from its own folder', async () => {
    const folder = join(dir, 'sharded')
    await mkdir(folder)
    await writeSafetensors(join(folder, 'one.safetensors'), { a: f32([1, 2], [2]) })
    const ids: HostTensor = { dtype: 'int64', dims: [1], data: BigInt64Array.of(5n) }
    await writeSafetensors(join(folder, 'two.safetensors'), { b: f32([3], [1]), ids })
    const map = (weight_map: Record<string, string>) =>
      writeFile(join(folder, 'model.safetensors.index.json'), JSON.stringify({ metadata: {}, weight_map }))

    await map({ a: 'one.safetensors', b: 'two.safetensors', ids: 'two.safetensors' })
    const checkpoint = await openCheckpoint(folder)
    expect(checkpoint.names()).toEqual(['a', 'b', 'ids'])
    expect((await checkpoint.readF32('b')).data).toEqual(Float32Array.of(3))
    await expect(checkpoint.readF32('ids')).rejects.toThrow(/tensor "ids": stored as I64/)
    await checkpoint.close()

    for (const path of [
      '../x.safetensors',
      '/etc/passwd',
      '..',
      'a/b.safetensors',
      'a\\b.safetensors',
      'one.bin',
      '',
    ]) {
      await map({ a: path })
      await expect(openCheckpoint(folder)).rejects.toThrow(/index.json, tensor "a": .* is not a .safetensors file name/)
    }
    await map({ a: 'two.safetensors' })
    await expect(openCheckpoint(folder)).rejects.toThrow(/tensor "a": not in two.safetensors/)
    await map({ a: 'three.safetensors' })
    await expect(openCheckpoint(folder)).rejects.toThrow(/no such file; are all weights downloaded/)
  })
})

describe.each(smolVlmVariants)('tokenizer and template of %s', (variant) => {
  it('encodes, decodes and names the special tokens', async () => {
    const tokenizer = await loadTokenizer(join(goldens, variant, 'checkpoint'))
    expect(tokenizer.vocabSize).toBe(640)
    expect(tokenizer.eosToken).toBe('<end_of_utterance>')
    expect(tokenizer.idOf('<end_of_utterance>')).toBe(639)
    expect(tokenizer.idOf('no such token')).toBeUndefined()
    expect(tokenizer.tokenOf(638)).toBe('<image>')
    expect(tokenizer.specialTokens).toContain('<fake_token_around_image>')
    expect(tokenizer.decode([], { skipSpecialTokens: true })).toBe('')
    for (const name of goldenCases(variant)) {
      type Scored = Record<'completion' | 'greedy', { ids: number[]; text: string }>
      const { completion, greedy } = goldenJson<Scored>(variant, 'cases', `${name}.json`)
      expect(tokenizer.encode(completion.text)).toEqual(completion.ids)
      expect(tokenizer.decode(completion.ids, { skipSpecialTokens: false })).toBe(completion.text)
      expect(tokenizer.decode(greedy.ids, { skipSpecialTokens: false })).toBe(greedy.text)
    }
    const text = 'naïve 图像 🙂 42%'
    expect(tokenizer.decode(tokenizer.encode(`${text}<image>`), { skipSpecialTokens: true })).toBe(text)
  })

  it('renders messages with and without the generation prompt', async () => {
    const template = await loadChatTemplate(join(goldens, variant, 'checkpoint'))
    const messages = [{ role: 'user', content: 'Is it red?' }]
    const open = renderChat(template, messages, { addGenerationPrompt: true })
    const closed = renderChat(template, messages, { addGenerationPrompt: false })
    expect(open).toBe(`${closed}Assistant:`)
    expect(closed).toMatch(/^<\|\w+\|>User: Is it red\?<end_of_utterance>\n$/)
  })
})

it('finds the template in tokenizer_config.json and names unusable files', async () => {
  const folder = join(dir, 'templates')
  await mkdir(folder)
  const config = (value: unknown) => writeFile(join(folder, 'tokenizer_config.json'), JSON.stringify(value))
  await expect(loadChatTemplate(folder)).rejects.toThrow(/no chat template/)
  await config({ chat_template: '{{ messages[0].content }}!' })
  const template = await loadChatTemplate(folder)
  expect(renderChat(template, [{ role: 'user', content: 'hi' }], { addGenerationPrompt: false })).toBe('hi!')
  await config({ chat_template: [{ name: 'default', template: '{% if %}' }] })
  await expect(loadChatTemplate(folder)).rejects.toThrow(/tokenizer_config.json: not a usable chat template/)
  await expect(loadTokenizer(folder)).rejects.toThrow(/tokenizer.json: no such file/)
  await writeFile(join(folder, 'tokenizer.json'), '{"model":{"type":"???"}}')
  await expect(loadTokenizer(folder)).rejects.toThrow(/tokenizer.json: not a usable tokenizer/)
})

describe('images', () => {
  /** The pattern that `pillow-resize.json` was made of: the high bytes of a 31-bit linear congruential generator. */
  function pattern(width: number, height: number): Uint8Array {
    let state = Number(((BigInt(width) * 73856093n) ^ (BigInt(height) * 19349663n)) & 0x7fffffffn)
    return Uint8Array.from({ length: width * height * 3 }, () => {
      state = (Math.imul(state, 1103515245) + 12345) & 0x7fffffff
      return state >> 16
    })
  }

  it('resizes like Pillow, bit for bit', async () => {
    type Row = [number, number, number, number, Filter, string]
    const file = join(import.meta.dirname, 'support/pillow-resize.json')
    const { cases } = JSON.parse(await readFile(file, 'utf8')) as { cases: Row[] }
    expect(cases.length).toBeGreaterThan(80)
    for (const [width, height, toWidth, toHeight, filter, sum] of cases) {
      const { data } = resize({ width, height, data: pattern(width, height) }, toWidth, toHeight, filter)
      const got = createHash('sha256').update(data).digest('hex').slice(0, 16)
      expect(got, `${width}×${height} → ${toWidth}×${toHeight} ${filter}`).toBe(sum)
    }
  })

  const red = {
    create: { width: 6, height: 4, channels: 4, background: { r: 200, g: 30, b: 20, alpha: 0.5 } },
  } as const
  it('gives 8-bit RGB of every colour mode', async () => {
    const gray = sharp(red).removeAlpha().toColourspace('b-w')
    const modes = {
      rgba: await sharp(red).png().toBuffer(),
      palette: await sharp(red).png({ palette: true }).toBuffer(),
      gray: await gray.png().toBuffer(),
      deep: await sharp(red).toColourspace('rgb16').png().toBuffer(),
      cmyk: await sharp(red).removeAlpha().toColourspace('cmyk').jpeg({ quality: 100 }).toBuffer(),
    }
    const decoded: Record<string, number[]> = {}
    for (const [mode, bytes] of Object.entries(modes)) {
      const { width, height, data } = await decodeImage(bytes)
      expect([width, height, data.length], mode).toEqual([6, 4, 72])
      decoded[mode] = [...data.subarray(0, 3)]
    }
    expect(decoded).toMatchObject({ rgba: [200, 30, 20], palette: [200, 30, 20], deep: [200, 30, 20] })
    const [r, g, b] = decoded['gray']!
    expect([g, b]).toEqual([r, r])
    expect(decoded['cmyk']![0]).toBeGreaterThan(decoded['cmyk']![1]! + 100)
  })

  it('turns pictures upright', async () => {
    const bytes = await sharp(red).withMetadata({ orientation: 6 }).png().toBuffer()
    expect(await decodeImage(bytes)).toMatchObject({ width: 4, height: 6 })
  })

  it('names pictures that cannot be decoded', async () => {
    const bytes = await sharp(red).removeAlpha().jpeg().toBuffer()
    const cases: [what: RegExp, bytes: Uint8Array, limitPixels?: number][] = [
      [/image x: the file is empty/, new Uint8Array(0)],
      [/image x: not a picture in a known format; convert it/, Buffer.from('not a picture')],
      [/image x: a drawing \(SVG\)/, Buffer.from(`<?xml version="1.0"?><svg width="6" height="4"/>`)],
      [/image x: packed data/, gzipSync('<svg/>')],
      [/image x: markup/, Buffer.from('<!DOCTYPE html><p>404')],
      [/image x: .*premature end/, bytes.subarray(0, bytes.length - 20)],
      [/image x: has more than 20 pixels/, bytes, 20],
    ]
    for (const [message, input, limitPixels] of cases) {
      const failure = decodeImage(input, { name: 'x', ...(limitPixels && { limitPixels }) })
      await expect(failure).rejects.toThrow(ImageError)
      await expect(failure).rejects.toThrow(message)
    }
  })
})
