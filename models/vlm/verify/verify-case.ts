/** One golden case: from messages and pictures to logits, greedy tokens and scores. */
import { join } from 'node:path'
import { generate } from '../../generate/generate.ts'
import type { Verified } from '../../losses/verify-grpo.ts'
import { f32 } from '../../tensor.ts'
import { packTrees, positionBehind } from '../../tree/pack.ts'
import type { Picture, ReferencePixels } from '../family.ts'
import { pixelsOf } from '../tiles.ts'
import { type Checks, checksOf, digestError, largestDifference, moments, TOLERANCE } from './checks.ts'
import { type GoldenCase, type GoldenPixels, GoldenTensors, PICTURE_FIELDS } from './golden-files.ts'
import { decodeOnWhite } from './on-white.ts'
import { imagePaths, type PreparedCase, prepareCase, rootsOf, type Variant } from './variant.ts'

/** Compares every value of `cases/<name>.json` and its tensors. */
export async function* verifyCase(variant: Variant, name: string): AsyncGenerator<Verified> {
  const check = checksOf(`cases/${name}`)
  const prepared = await prepareCase(variant, name)
  const tensors = await GoldenTensors.open(join(variant.dir, 'cases', `${name}.safetensors`))
  yield* verifyPrompt(check, variant, prepared, tensors)
  yield* verifyPixels(check, variant, prepared, tensors)
  yield* verifyFeatures(check, prepared, tensors)
  yield* verifyOutputs(check, variant, prepared, tensors)
  yield* verifyDecoding(check, variant, prepared)
  yield check.same('tensors that nothing was compared with', tensors.unread(), [])
}

function* verifyPrompt(
  check: Checks,
  variant: Variant,
  { golden, inputs }: PreparedCase,
  tensors: GoldenTensors,
): Generator<Verified> {
  const { imageTokenId } = variant.architecture
  yield check.same('prompt', [inputs.prompt], [golden.prompt])
  yield check.same('num_tokens', [inputs.inputIds.length], [golden.num_tokens])
  yield check.same('input_ids', inputs.inputIds, golden.input_ids)
  yield check.same('input_ids (tensor)', inputs.inputIds, tensors.numbers('input_ids'))
  const runs = runsOf(inputs.inputIds, imageTokenId)
  yield check.same('image_token_runs', runs.flat(), golden.image_token_runs.flat())
  const [root] = rootsOf(variant, [inputs])
  const { positions } = packTrees([root!], imageTokenId)
  const stored = golden.position_ids === '0..T-1' ? [...golden.input_ids.keys()] : tensors.numbers('position_ids')
  yield check.same('position_ids', positions, stored)
  if (golden.rope_delta !== undefined)
    yield check.same('rope_delta', [positionBehind(root!) - inputs.inputIds.length], [golden.rope_delta])
}

/** [start, length] of every run of `token`. */
function runsOf(ids: readonly number[], token: number): [number, number][] {
  const runs: [number, number][] = []
  ids.forEach((id, i) => {
    const last = runs.at(-1)
    if (id !== token) return
    if (last && last[0] + last[1] === i) last[1]++
    else runs.push([i, 1])
  })
  return runs
}

async function* verifyPixels(
  check: Checks,
  { processor, images }: Variant,
  { golden, inputs }: PreparedCase,
  tensors: GoldenTensors,
): AsyncGenerator<Verified> {
  const paths = imagePaths(golden)
  const own = processor.reference(inputs.pictures)
  for (const field of PICTURE_FIELDS) {
    if (!(field in own.fields) && golden[field] === undefined) continue
    const empty = Array.isArray(own.fields[field]) && inputs.pictures.length === 0 ? [] : null
    yield check.same(field, [JSON.stringify(own.fields[field])], [JSON.stringify(golden[field] ?? empty)])
  }
  for (const [name, values] of Object.entries(own.tensors)) yield check.same(name, values, tensors.numbers(name))
  yield check.holds('has pixel_values', paths.length > 0 === (golden.pixel_values !== undefined))
  if (!golden.pixel_values || !own.pixels) return
  yield* compareStoredPixels(check, 'pixel_values', own.pixels, golden.pixel_values, tensors)
  const alpha = paths.some((path) => images.hasAlpha(path))
  yield check.holds('has pixel_values_on_white', alpha === (golden.pixel_values_on_white !== undefined))
  if (!golden.pixel_values_on_white) return
  const files = await Promise.all(paths.map((path) => images.original(path)))
  const onWhite = (await Promise.all(files.map(decodeOnWhite))).map((image) => processor.preparePicture(image))
  const white = processor.reference(onWhite).pixels!
  yield* compareStoredPixels(check, 'pixel_values_on_white', white, golden.pixel_values_on_white, tensors)
}

function* compareStoredPixels(
  check: Checks,
  name: string,
  own: ReferencePixels,
  golden: GoldenPixels,
  tensors: GoldenTensors,
): Generator<Verified> {
  yield check.same(`${name}.uint8 shape`, own.shape, tensors.tensor(`${name}.uint8`).dims)
  yield check.same(`${name}.uint8`, own.uint8, tensors.numbers(`${name}.uint8`))
  yield check.within(name, storedError(own.values, own.shape, name, tensors), TOLERANCE.pixels)
  yield check.within(`${name} (JSON)`, digestError(own.values, own.shape, golden), TOLERANCE.pixels)
  yield check.same(`${name} stored`, [tensors.has(name) ? 'full' : 'sample'], [golden.stored])
}

/** A tensor stored whole, or as `.index` (flat, ascending) and `.value`. */
function storedError(
  values: ArrayLike<number>,
  shape: readonly number[],
  name: string,
  tensors: GoldenTensors,
): number {
  if (tensors.has(name)) {
    if (tensors.tensor(name).dims.join() !== shape.join()) return Infinity
    return largestDifference(values, tensors.numbers(name))
  }
  const index = Array.from(tensors.numbers(`${name}.index`))
  if (index.some((at, i) => at >= values.length || at <= (index[i - 1] ?? -1))) return Infinity
  return largestDifference(
    index.map((at) => values[at]!),
    tensors.numbers(`${name}.value`),
  )
}

function* verifyFeatures(
  check: Checks,
  { golden, features }: PreparedCase,
  tensors: GoldenTensors,
): Generator<Verified> {
  yield check.holds('has image_features', (features !== null) === (golden.image_features !== undefined))
  if (!features || !golden.image_features) return
  const error = storedError(features.data, features.dims, 'image_features', tensors)
  yield check.within('image_features', error, TOLERANCE.features)
  const json = digestError(features.data, features.dims, golden.image_features)
  yield check.within('image_features (JSON)', json, TOLERANCE.features)
}

/** Logits of the prompt. */
async function* verifyOutputs(
  check: Checks,
  variant: Variant,
  { golden, inputs, features }: PreparedCase,
  tensors: GoldenTensors,
): AsyncGenerator<Verified> {
  const { network, architecture } = variant
  const [length, vocab] = [inputs.inputIds.length, architecture.text.vocab]
  const tree = packTrees(rootsOf(variant, [inputs]), architecture.imageTokenId)
  const own = await variant.logits.run(tree, features, network.weights, [...inputs.inputIds.keys()])
  const last = own.subarray((length - 1) * vocab)
  yield check.within('logits', storedError(own, [length, vocab], 'logits', tensors), TOLERANCE.logits)
  yield check.close('logits_last', last, tensors.numbers('logits_last'), TOLERANCE.logits)
  yield check.same('logits shape', [length, vocab], golden.logits.shape)
  yield check.same('logits stored', [tensors.has('logits') ? 'full' : 'last + sample'], [golden.logits.stored])
  // The reference divides by n − 1 here.
  const std = moments(own).std * Math.sqrt(own.length / (own.length - 1))
  yield check.close('logits std', [std], [golden.logits.std], TOLERANCE.logits)
  yield check.same('argmax_last', [argmax(last)], [golden.logits.argmax_last])
  const change = golden.logits.last_change_at_half_contrast
  yield check.holds('has last_change_at_half_contrast', (features !== null) === (change !== undefined))
  if (change === undefined || !features) return
  const faint = await network.features(architecture.vision.passes(inputs.pictures.map(halfContrast)))
  const faintLast = await variant.logits.run(tree, faint, network.weights, [length - 1])
  const changed = largestDifference(last, faintLast)
  yield check.close('last_change_at_half_contrast', [changed], [change], TOLERANCE.logits)
}

const halfContrast = (picture: Picture): Picture => {
  const { data, dims } = pixelsOf(picture)
  return {
    ...picture,
    inputs: {
      ...picture.inputs,
      pixels: f32(
        data.map((x) => x * 0.5),
        dims,
      ),
    },
  }
}

/** Greedy decoding with and without a cache, and a given completion scored. */
async function* verifyDecoding(check: Checks, variant: Variant, prepared: PreparedCase): AsyncGenerator<Verified> {
  const { network, architecture, processor } = variant
  const { golden, inputs, features, image } = prepared
  const { greedy, completion } = golden
  const prompts = [{ tokens: [], completions: [greedy.ids, completion.ids] }]
  const tree = packTrees(
    rootsOf(variant, [inputs], () => prompts),
    architecture.imageTokenId,
  )
  const { logprobs, entropies } = await network.score(tree, image)
  const rows = [...tree.predictors.subarray(0, greedy.ids.length)]
  const own = await variant.logits.run(tree, features, network.weights, rows)
  const tops = rows.map((_, i) => topTwo(own.subarray(i * architecture.text.vocab, (i + 1) * architecture.text.vocab)))

  const sure = firstUnsure(greedy.top2_logit_margin)
  const cached = await decode(variant, prepared, greedy.ids.length)
  yield check.same(
    'greedy tokens',
    tops.slice(0, sure).map((t) => t.best),
    greedy.ids.slice(0, sure),
  )
  yield check.same('greedy tokens (cached)', cached.tokens.slice(0, sure), greedy.ids.slice(0, sure))
  yield check.close('greedy logprobs', logprobs[0]!, greedy.logprobs, TOLERANCE.logprobs)
  const [fromCache, expected] = [cached.logprobs.slice(0, sure), greedy.logprobs.slice(0, sure)]
  yield check.close('greedy logprobs (cached)', fromCache, expected, TOLERANCE.logprobs)
  yield check.close('cached = uncached', fromCache, logprobs[0]!.slice(0, sure), TOLERANCE.batched)
  yield check.close(
    'greedy top2_logit_margin',
    tops.map((t) => t.margin),
    greedy.top2_logit_margin,
    TOLERANCE.logits,
  )
  yield check.same('greedy text', [processor.tokenizer.decode(greedy.ids, { skipSpecialTokens: false })], [greedy.text])
  yield check.holds('greedy matches_hf_generate', sure < greedy.ids.length || greedy.matches_hf_generate)
  yield* verifyCompletion(check, variant, golden, logprobs[1]!, entropies[1]!)
}

function* verifyCompletion(
  check: Checks,
  { processor }: Variant,
  { completion }: GoldenCase,
  logprobs: readonly number[],
  entropies: readonly number[],
): Generator<Verified> {
  const { tokenizer } = processor
  yield check.same('completion ids', tokenizer.encode(completion.text, { addSpecialTokens: false }), completion.ids)
  yield check.same(
    'completion text',
    [tokenizer.decode(completion.ids, { skipSpecialTokens: false })],
    [completion.text],
  )
  yield check.close('completion logprobs', logprobs, completion.logprobs, TOLERANCE.logprobs)
  yield check.close('completion entropies', entropies, completion.entropies, TOLERANCE.logprobs)
  const sum = logprobs.reduce((a, b) => a + b, 0)
  yield check.close('completion sum_logprob', [sum], [completion.sum_logprob], TOLERANCE.logprobs * logprobs.length)
}

/** `count` greedy tokens with the key-value cache; the end token does not stop. */
async function decode(variant: Variant, { inputs, features }: PreparedCase, count: number) {
  const { hiddenSize } = variant.architecture.text
  const request = { tokens: [], samples: 1, maxNewTokens: count, temperature: 0, seed: 0, key: 'verify' }
  const [root] = rootsOf(variant, [inputs])
  const image = { ...root!, prompts: [request] }
  const model = { ...variant.network.generation(), endTokens: new Set<number>() }
  const results = await generate(model, [image], features ?? f32(new Float32Array(hiddenSize), [1, hiddenSize]))
  return results[0]![0]![0]!
}

/** Number of steps before the first one whose winner float32 cannot tell. */
function firstUnsure(margins: readonly number[]): number {
  const at = margins.findIndex((margin) => margin < TOLERANCE.greedyMargin)
  return at < 0 ? margins.length : at
}

function argmax(values: ArrayLike<number>): number {
  return topTwo(values).best
}

function topTwo(values: ArrayLike<number>): { best: number; margin: number } {
  let best = 0
  let second = -Infinity
  for (let i = 1; i < values.length; i++) {
    if (values[i]! > values[best]!) {
      second = values[best]!
      best = i
    } else second = Math.max(second, values[i]!)
  }
  return { best, margin: values[best]! - second }
}
