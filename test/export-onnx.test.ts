/** ONNX exports are run by onnxruntime alone, as any other program would, and give what transformers gives. */
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import * as ort from 'onnxruntime-node'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { Graph } from '../models/graph/graph.ts'
import { readSafetensors } from '../models/io/safetensors.ts'
import { Session } from '../models/runtime/session.ts'
import { f32, i32, type TensorMap } from '../models/tensor.ts'
import { readAdapter } from '../models/vlm/lora.ts'
import { bestPinpoint, featureOrder, type Size } from '../models/vlm/llava_next/anyres.ts'
import { orderGraph } from '../models/vlm/llava_next/order-graph.ts'
import { openModel } from '../models/vlm/open.ts'
import type { Trained } from '../models/vlm/whole-weights.ts'
import { writeOnnxExport } from '../runners/export/onnx.ts'
import { familyVariants, goldenCases, goldenJson, goldens, qwenSmall, smolVlmVariants } from './support/goldens.ts'
import { program } from './support/program.ts'
import { rng } from './support/rng.ts'

const tiny = join(import.meta.dirname, '../models/tiny')
const untrained: Trained = { lora: null, weights: {} }
const signal = new AbortController().signal

let dir: string
beforeAll(async () => void (dir = await mkdtemp(join(tmpdir(), 'visplay-onnx-'))))
afterAll(() => rm(dir, { recursive: true, force: true }))

interface GoldenCase {
  readonly input_ids: number[]
  readonly image_grid_thw?: number[][]
  readonly image_sizes?: [number, number][]
  readonly rope_delta?: number
  readonly greedy: { readonly ids: number[]; readonly top2_logit_margin: number[] }
}
interface Config {
  readonly image_token_id?: number
  readonly image_token_index?: number
  readonly text_config?: Record<string, number>
  readonly vision_config: Record<string, number>
  readonly image_grid_pinpoints?: [number, number][]
}

const longs = (values: ArrayLike<number>, dims: readonly number[]) =>
  new ort.Tensor('int64', BigInt64Array.from(Array.from(values), BigInt), dims)
const floats = (data: Float32Array, dims: readonly number[]) => new ort.Tensor('float32', data, dims)

/** The three graphs of a folder, loaded by path as any program loads them. */
class Exported {
  private constructor(
    private readonly vision: ort.InferenceSession,
    private readonly embed: ort.InferenceSession,
    private readonly decoder: ort.InferenceSession,
  ) {}

  static async open(folder: string): Promise<Exported> {
    const load = (name: string) =>
      ort.InferenceSession.create(join(folder, 'onnx', `${name}.onnx`), { intraOpNumThreads: 1 })
    return new Exported(await load('vision_encoder'), await load('embed_tokens'), await load('decoder_model_merged'))
  }

  async features(feeds: Record<string, ort.Tensor>): Promise<Float32Array> {
    return (await this.vision.run(feeds))['image_features']!.data as Float32Array
  }

  /** Image features at the placeholders, in order. */
  async embeddings(
    ids: readonly number[],
    dims: readonly number[],
    image: number,
    features: Float32Array,
  ): Promise<ort.Tensor> {
    const { inputs_embeds: embeds } = await this.embed.run({ input_ids: longs(ids, dims) })
    const width = embeds!.dims.at(-1)!
    const data = embeds!.data as Float32Array
    let at = 0
    ids.forEach((id, i) => {
      if (id === image) data.set(features.subarray(at, (at += width)), i * width)
    })
    expect(at).toBe(features.length)
    return embeds!
  }

  async decode(embeds: ort.Tensor, mask: ort.Tensor, positions: ort.Tensor, past: Record<string, ort.Tensor>) {
    const feeds = { inputs_embeds: embeds, attention_mask: mask, position_ids: positions, ...past }
    const { logits, ...present } = await this.decoder.run(feeds)
    const renamed = Object.entries(present).map(([name, t]) => [name.replace('present', 'past_key_values'), t] as const)
    return { logits: logits!, past: Object.fromEntries(renamed) }
  }

  /** Caches of no token, as their declared shapes want them. */
  empty(batch: number): Record<string, ort.Tensor> {
    const caches = this.decoder.inputMetadata.filter((meta) => meta.name.startsWith('past_key_values'))
    return Object.fromEntries(
      caches.map((meta) => {
        const { name, shape } = meta as ort.InferenceSession.TensorValueMetadata
        return [name, floats(new Float32Array(), [batch, Number(shape[1]), 0, Number(shape[3])])]
      }),
    )
  }

  async release(): Promise<void> {
    for (const session of [this.vision, this.embed, this.decoder]) await session.release()
  }
}

/** What the processor of transformers returned for the pictures of a case: 8-bit pixels of the goldens, normalised. */
function pixelsOf(variant: string, tensors: TensorMap): { data: Float32Array; dims: readonly number[] } {
  const { settings } = goldenJson<{ settings: Record<string, number & number[]> }>(variant, 'preprocessing.json')
  const { data, dims } = tensors['pixel_values.uint8']!
  // Rows of patches hold the channels one after the other, and so do pictures.
  const plane = dims.length === 2 ? dims[1]! / 3 : dims.at(-1)! * dims.at(-2)!
  const values = Float32Array.from(data as Uint8Array, (x, i) => {
    const channel = Math.floor(i / plane) % 3
    return (x * settings['rescale_factor']! - settings['image_mean']![channel]!) / settings['image_std']![channel]!
  })
  return { data: values, dims }
}

async function featuresOf(model: Exported, variant: string, golden: GoldenCase, tensors: TensorMap, config: Config) {
  const { data, dims } = pixelsOf(variant, tensors)
  const size = data.length / dims[0]!
  if (golden.image_grid_thw) {
    let first = 0
    const parts: Float32Array[] = []
    for (const grid of golden.image_grid_thw) {
      const count = grid[1]! * grid[2]!
      const pixels = floats(data.subarray(first * size, (first + count) * size), [count, size])
      parts.push(await model.features({ pixel_values: pixels, image_grid_thw: longs(grid, [1, 3]) }))
      first += count
    }
    return Float32Array.from(parts.flatMap((p) => [...p]))
  }
  if (golden.image_sizes) {
    const tile = config.vision_config['image_size']!
    const parts: Float32Array[] = []
    for (const [i, image] of golden.image_sizes.entries()) {
      // Beside a picture of more tiles, the processor fills up with empty ones.
      const [height, width] = bestPinpoint(image, config.image_grid_pinpoints!)
      const count = 1 + (height / tile) * (width / tile)
      const own = data.subarray(i * size, i * size + count * 3 * tile * tile)
      const pixels = floats(own, [1, count, 3, tile, tile])
      parts.push(await model.features({ pixel_values: pixels, image_sizes: longs(image, [1, 2]) }))
    }
    return Float32Array.from(parts.flatMap((p) => [...p]))
  }
  if (dims.length === 4) return model.features({ pixel_values: floats(data, dims) })
  // A tile that only fills up a batch of conversations gives no features.
  const [, tiles, , height, width] = dims as [number, number, number, number, number]
  const filled = new Float32Array(data.length + size / tiles)
  filled.set(data)
  const mask = Uint8Array.from({ length: (tiles + 1) * height * width }, (_, i) => (i < tiles * height * width ? 1 : 0))
  return model.features({
    pixel_values: floats(filled, [1, tiles + 1, 3, height, width]),
    pixel_attention_mask: new ort.Tensor('bool', mask, [1, tiles + 1, height, width]),
  })
}

const furthest = (a: ArrayLike<number>, b: ArrayLike<number>): number => {
  expect(a.length).toBe(b.length)
  return Array.from(a).reduce((n, x, i) => Math.max(n, Math.abs(x - b[i]!)), 0)
}
const best = (row: ArrayLike<number>): number => Array.from(row).reduce((k, x, i) => (x > row[k]! ? i : k), 0)
const range = (n: number, from = 0): number[] => Array.from({ length: n }, (_, i) => from + i)

const CASES = ['single', 'interleaved', 'tall']
const variants = [...new Set([...familyVariants, ...smolVlmVariants])].filter((v) => existsSync(join(goldens, v)))

describe.each(variants)('%s as ONNX', (variant) => {
  const base = join(goldens, variant, 'checkpoint')
  const config = JSON.parse(readFileSync(join(base, 'config.json'), 'utf8')) as Config
  const image = config.image_token_id ?? config.image_token_index!
  let model: Exported
  beforeAll(async () => {
    const to = join(dir, variant.replace('/', '-'))
    await writeOnnxExport(to, base, untrained, { signal })
    model = await Exported.open(to)
  })
  afterAll(() => model.release())

  it.each(CASES.filter((name) => goldenCases(variant).includes(name)))(
    '%s: features, logits and greedy tokens',
    async (name) => {
      const golden = goldenJson<GoldenCase>(variant, 'cases', `${name}.json`)
      const tensors = await readSafetensors(join(goldens, variant, 'cases', `${name}.safetensors`))
      const ids = golden.input_ids
      const features = await featuresOf(model, variant, golden, tensors, config)
      expect(furthest(features, tensors['image_features']!.data as Float32Array)).toBeLessThan(1e-4)
      const axes = tensors['position_ids'] ? 3 : 1
      const at = (n: number, from: number) => range(axes).flatMap(() => range(n, from))
      const positions = tensors['position_ids'] ? Array.from(tensors['position_ids'].data, Number) : range(ids.length)
      const shape = (n: number) => (axes === 3 ? [3, 1, n] : [1, n])
      const ones = (n: number) =>
        longs(
          range(n).map(() => 1),
          [1, n],
        )
      const embeds = await model.embeddings(ids, [1, ids.length], image, features)
      const prompt = await model.decode(embeds, ones(ids.length), longs(positions, shape(ids.length)), model.empty(1))
      const vocab = prompt.logits.dims[2]!
      const all = prompt.logits.data as Float32Array
      expect(furthest(all.subarray(-vocab), tensors['logits_last']!.data as Float32Array)).toBeLessThan(5e-4)
      const whole = tensors['logits']?.data as Float32Array | undefined
      const index = tensors['logits.index'] && Array.from(tensors['logits.index'].data, Number)
      const sample = whole ?? (tensors['logits.value']!.data as Float32Array)
      expect(furthest(whole ? all : index!.map((i) => all[i]!), sample)).toBeLessThan(5e-4)

      let last = prompt
      const { ids: greedy, top2_logit_margin: margins } = golden.greedy
      for (const [t, id] of greedy.entries()) {
        const data = last.logits.data as Float32Array
        const own = best(data.subarray(-vocab))
        // As `visplay verify` has it, a step whose two best logits are as good as equal may go either way.
        if (margins[t]! > 1e-3) expect(own).toBe(id)
        const token = await model.embeddings([id], [1, 1], -1, new Float32Array())
        const total = ids.length + t + 1
        const position = longs(at(1, total - 1 + (golden.rope_delta ?? 0)), shape(1))
        last = await model.decode(token, ones(total), position, last.past)
      }
    },
  )

  it('leaves config.json letter by letter as it was: Python tells 1.0 from 1', () => {
    const text = (folder: string) => readFileSync(join(folder, 'config.json'), 'utf8').trimEnd()
    const before = text(base).slice(0, -1).trimEnd()
    expect(text(join(dir, variant.replace('/', '-'))).slice(0, before.length)).toBe(before)
  })

  it('gives a padded row of a batch the logits that it has alone', async () => {
    const names = ['single', 'text_only']
    const cases = await Promise.all(
      names.map(async (name) => ({
        golden: goldenJson<GoldenCase>(variant, 'cases', `${name}.json`),
        tensors: await readSafetensors(join(goldens, variant, 'cases', `${name}.safetensors`)),
      })),
    )
    const features = await featuresOf(model, variant, cases[0]!.golden, cases[0]!.tensors, config)
    const longest = Math.max(...cases.map(({ golden }) => golden.input_ids.length))
    const pads = cases.map(({ golden }) => longest - golden.input_ids.length)
    const ids = cases.flatMap(({ golden }, i) => [...range(pads[i]!).map(() => 0), ...golden.input_ids])
    const mask = pads.flatMap((pad) => range(longest).map((i) => (i < pad ? 0 : 1)))
    const axes = cases[0]!.tensors['position_ids'] ? 3 : 1
    const positions = range(axes).flatMap((axis) =>
      cases.flatMap(({ golden, tensors }, i) => {
        const length = golden.input_ids.length
        const own = tensors['position_ids'] && Array.from(tensors['position_ids'].data, Number)
        return [
          ...range(pads[i]!).map(() => 1),
          ...(own ? own.slice(axis * length, (axis + 1) * length) : range(length)),
        ]
      }),
    )
    const shape = axes === 3 ? [3, 2, longest] : [2, longest]
    const embeds = await model.embeddings(ids, [2, longest], image, features)
    const { logits } = await model.decode(embeds, longs(mask, [2, longest]), longs(positions, shape), model.empty(2))
    const vocab = logits.dims[2]!
    cases.forEach(({ tensors }, i) => {
      const own = (logits.data as Float32Array).subarray(((i + 1) * longest - 1) * vocab, (i + 1) * longest * vocab)
      expect(furthest(own, tensors['logits_last']!.data as Float32Array)).toBeLessThan(5e-4)
    })
  })
})

describe('inputs that the graph computes', () => {
  it('Qwen2.5-VL: windows and places of a picture of several cut-off windows', async () => {
    const base = join(qwenSmall, 'checkpoint')
    const to = join(dir, 'windows')
    await writeOnnxExport(to, base, untrained, { signal })
    const [exported, product] = [await Exported.open(to), await openModel(base, { threads: 1 })]
    const { patch, merge } = { patch: 14, merge: 2 }
    const random = rng(5)
    for (const [rows, cols] of [
      [9, 6],
      [3, 13],
      [4, 8],
    ] as const) {
      const values = Float32Array.from({ length: rows * cols * merge ** 2 * 6 * patch ** 2 }, () => random() * 2 - 1)
      const [patches, size] = [rows * cols * merge ** 2, 6 * patch ** 2]
      const own = await exported.features({
        pixel_values: floats(values, [patches, size]),
        image_grid_thw: longs([1, rows * merge, cols * merge], [1, 3]),
      })
      const layout = { rows, cols, features: rows * cols }
      const picture = {
        layout,
        uint8: new Uint8Array(),
        inputs: { pixels: f32(values, [rows * cols, merge ** 2, size]) },
      }
      const { vision } = product.network.context.architecture
      const { data } = await product.network.features(vision.passes([picture]))
      expect(furthest(own, data)).toBeLessThan(1e-5)
    }
    await exported.release()
    await product.dispose()
  })

  it('LLaVA-NeXT: the order of features for pictures of any size', async () => {
    const pinpoints: Size[] = [
      [336, 672],
      [672, 336],
      [672, 672],
      [1008, 336],
      [336, 1008],
    ]
    const sizes = { tile: 336, side: 24, pinpoints }
    const graph = new Graph()
    const tiles = graph.input('tiles', 'int32', ['B'])
    const order = orderGraph(tiles, graph.input('size', 'int32', [1, 2]), sizes)
    const session = await Session.create(graph, { order }, { threads: 1 })
    const random = rng(7)
    // The last two: where rounding twice decides between pinpoints.
    const pictures: Size[] = [
      ...range(60).map((): Size => [1 + Math.floor(random() * 2000), 1 + Math.floor(random() * 2000)]),
      [570, 1141],
      [582, 1165],
    ]
    for (const picture of pictures) {
      const [height, width] = bestPinpoint(picture, pinpoints)
      const count = 1 + (height * width) / 336 ** 2
      const feeds = { tiles: i32(new Int32Array(count), [count]), size: i32([...picture], [1, 2]) }
      const { order: own } = await session.run(feeds)
      expect([...(own!.data as Int32Array)]).toEqual([...featureOrder(picture, [height / 336, width / 336], 24)])
    }
    await session.release()
  })
})

describe('visplay export --format onnx', () => {
  it('folds an adapter in, beside the settings of the checkpoint, and says what goes in and comes out', async () => {
    const to = join(dir, 'tiny')
    const adapter = join(goldens, 'smolvlm/tiny64/train/adapter')
    const base = join(goldens, 'smolvlm/tiny64/checkpoint')
    const args = ['export', '--model', base, '--adapter', adapter, '--format', 'onnx', '--out', to, '--json']
    const { code, stdout, stderr } = await program(args)
    expect(code, stderr).toBe(0)
    expect(JSON.parse(stdout.trim().split('\n').at(-1)!)).toMatchObject({ event: 'done', out: to })
    const names = readdirSync(base).filter((name) => !name.endsWith('.safetensors'))
    expect(readdirSync(to)).toEqual(expect.arrayContaining([...names, 'onnx']))
    const files = ['vision_encoder', 'embed_tokens', 'decoder_model_merged'].flatMap((n) => [
      `${n}.onnx`,
      `${n}.onnx_data`,
    ])
    expect(readdirSync(join(to, 'onnx')).toSorted()).toEqual([...files, 'manifest.json'].toSorted())
    const config = JSON.parse(readFileSync(join(to, 'config.json'), 'utf8')) as Record<string, Record<string, unknown>>
    expect(config['transformers.js_config']!['use_external_data_format']).toMatchObject({
      'decoder_model_merged.onnx': 1,
    })
    const { graphs } = JSON.parse(readFileSync(join(to, 'onnx/manifest.json'), 'utf8')) as {
      graphs: Record<string, { inputs: Record<string, unknown> }>
    }
    expect(graphs['decoder_model_merged.onnx']!.inputs).toMatchObject({
      attention_mask: { dtype: 'int64', shape: ['batch_size', '(past_sequence_length+sequence_length)'] },
    })

    const { shape, weights } = await readAdapter(adapter)
    const [own, plain] = [await Exported.open(to), join(dir, 'plain')]
    await writeOnnxExport(plain, base, untrained, { signal })
    const without = await Exported.open(plain)
    const merged = await mergedLogits(own)
    expect(furthest(merged, await mergedLogits(without))).toBeGreaterThan(1e-3)
    const golden = await readSafetensors(join(goldens, 'smolvlm/tiny64/cases/text_only.safetensors'))
    expect(furthest(await mergedLogits(without), golden['logits_last']!.data as Float32Array)).toBeLessThan(5e-4)
    const again = join(dir, 'again')
    await writeOnnxExport(again, base, { lora: shape, weights }, { signal })
    const data = (folder: string) => readFileSync(join(folder, 'onnx/decoder_model_merged.onnx_data'))
    expect(data(again).equals(data(to))).toBe(true)
    await own.release()
    await without.release()
  })

  it('leaves nothing half-written, and nothing of others is replaced', async () => {
    const to = join(dir, 'stopped')
    const stop = new AbortController()
    const onProgress = (share: number) => share > 0.5 && stop.abort()
    await expect(writeOnnxExport(to, tiny, untrained, { signal: stop.signal, onProgress })).rejects.toThrow(/abort/i)
    expect(readdirSync(dir).filter((name) => name.startsWith('stopped'))).toEqual([])
    const { code, stderr } = await program(['export', '--model', tiny, '--format', 'onnx', '--out', tiny])
    expect([code, stderr]).toEqual([2, expect.stringContaining('choose a folder that does not exist')])
    const peft = await program(['export', '--model', tiny, '--format', 'peft', '--out', join(dir, 'peft')])
    expect([peft.code, peft.stderr]).toEqual([2, expect.stringContaining('--format onnx')])
  })
})

async function mergedLogits(model: Exported): Promise<Float32Array> {
  const { input_ids: ids } = goldenJson<GoldenCase>('smolvlm/tiny64', 'cases', 'text_only.json')
  const embeds = await model.embeddings(ids, [1, ids.length], -1, new Float32Array())
  const ones = longs(
    ids.map(() => 1),
    [1, ids.length],
  )
  const { logits } = await model.decode(embeds, ones, longs(range(ids.length), [1, ids.length]), model.empty(1))
  return (logits.data as Float32Array).subarray(-logits.dims[2]!)
}
