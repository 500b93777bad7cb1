/**
 * Sampling over token trees. Completions of a prompt that agree so far are one node with several samples: equal prefixes
 * are computed once, and short answers cost one forward pass per *distinct* answer. A step is schedule → run → postprocess.
 */
import {
  axesOf,
  type PackedTree,
  packTrees,
  positionBehind,
  type PrefixPositions,
  type TreeRoot,
} from '../tree/pack.ts'
import { f32, i32, type HostTensor, type TensorMap } from '../tensor.ts'
import type { KeyValueCache } from './key-value-cache.ts'
import { randomKey, uniform } from './random.ts'

/** What the sampler needs to know of a text model. */
export interface GenerationModel {
  readonly imageToken: number
  readonly endTokens: ReadonlySet<number>
  /** Added to the scores of invisible keys. */
  readonly masked: number
  /** An empty cache for the trees of `images` images; `most` columns will be needed at most. */
  cache(images: number, most: number): KeyValueCache
  /**
   * New tokens, whose keys and values join the cache, and samples at `rows` of them. Feeds: ids, featureIndex [I, S],
   * positions [I, S] or [3, I, S], features [F, hidden], bias [I, S, width + S] (columns of the cache first), rows [P],
   * uniforms [P, G] and, unless all are 1, inverseTemperature [P, 1].
   */
  extend(cache: KeyValueCache, feeds: TensorMap): Promise<Sampled>
  /** Told of a sample whenever it has one more token; `index` is that among the samples of its prompt. */
  readonly onToken?: (prompt: PromptRequest, index: number, sampled: SampledTokens) => void
}

export interface Sampled {
  /** int32 [P, G] */
  readonly sampled: HostTensor
  /** float32 [P, G], at T = 1. */
  readonly logprobs: HostTensor
}

export interface PromptRequest {
  readonly tokens: readonly number[]
  readonly samples: number
  readonly maxNewTokens: number
  /** 0 = greedy. */
  readonly temperature: number
  readonly seed: number
  readonly key: string
}

export interface ImageRequests {
  readonly prefix: readonly number[]
  /** As in a `TreeRoot`. */
  readonly positions?: PrefixPositions
  readonly firstFeature: number
  readonly prompts: readonly PromptRequest[]
}

export interface SampledTokens {
  readonly tokens: readonly number[]
  readonly logprobs: readonly number[]
  readonly finished: boolean
}

interface Sample {
  readonly index: number
  readonly randomKey: number
  readonly prompt: PromptRequest
  readonly tokens: number[]
  readonly logprobs: number[]
  finished: boolean
}

/** Samples that share all tokens so far; `columns` are the cache columns of its own tokens. */
interface Node {
  readonly image: number
  readonly token: number
  readonly position: number
  /** Visible columns of prompt and ancestors, as ranges [from, to). */
  readonly visible: readonly (readonly [number, number])[]
  readonly samples: readonly Sample[]
}

/**
 * A greedy token is a sample at a temperature near 0: a power of two scales exactly, and neighbouring float32 logits are
 * then so far apart that one token has all the probability; of equal ones (up to four) the first is taken.
 */
const GREEDY = { inverseTemperature: 2 ** 30, uniform: 0.2 }

/**
 * Samples every prompt of every image. Returned per image, prompt, sample.
 *
 * @param features float32 [F, hidden], image features in the order of `firstFeature`.
 */
export async function generate(
  model: GenerationModel,
  images: readonly ImageRequests[],
  features: HostTensor<'float32'>,
): Promise<SampledTokens[][][]> {
  const cache = model.cache(images.length, mostColumns(images))
  try {
    const samples = images.map((image) => image.prompts.map((prompt) => newSamples(prompt)))
    let nodes = await prefill(model, images, features, cache, samples)
    const batch: Batch = { images: images.length, axes: axesOf(images), features: blank(features) }
    while (nodes.length > 0) nodes = await step(model, nodes, cache, batch)
    return samples.map((perPrompt) =>
      perPrompt.map((list) => list.map(({ tokens, logprobs, finished }) => ({ tokens, logprobs, finished }))),
    )
  } finally {
    cache.dispose()
  }
}

/** What stays the same from step to step. */
interface Batch {
  readonly images: number
  readonly axes: number
  readonly features: HostTensor<'float32'>
}

/** Stands for the features where no token is of an image. */
function blank({ dims: [, hidden] }: HostTensor<'float32'>): HostTensor<'float32'> {
  return f32(new Float32Array(hidden!), [1, hidden!])
}

/** Prompts, then at every step as many columns as the widest image has samples. */
function mostColumns(images: readonly ImageRequests[]): number {
  const most = (size: (image: ImageRequests) => number) => images.reduce((n, image) => Math.max(n, size(image)), 0)
  const add = (image: ImageRequests, size: (p: PromptRequest) => number) =>
    image.prompts.reduce((n, p) => n + size(p), 0)
  const steps = most(({ prompts }) => prompts.reduce((n, p) => Math.max(n, p.maxNewTokens - 1), 0))
  return most((i) => i.prefix.length + add(i, (p) => p.tokens.length)) + steps * most((i) => add(i, (p) => p.samples))
}

function newSamples(prompt: PromptRequest): Sample[] {
  const key = randomKey(prompt.seed, prompt.key)
  return Array.from({ length: prompt.samples }, (_, index) => ({
    index,
    randomKey: key,
    prompt,
    tokens: [],
    logprobs: [],
    finished: false,
  }))
}

/** Computes prefixes and prompts, fills the cache, samples the first tokens. */
async function prefill(
  model: GenerationModel,
  images: readonly ImageRequests[],
  features: HostTensor<'float32'>,
  cache: KeyValueCache,
  samples: readonly (readonly Sample[][])[],
): Promise<Node[]> {
  const roots: TreeRoot[] = images.map(({ prompts, ...root }) => ({
    ...root,
    prompts: prompts.map(({ tokens }) => ({ tokens, completions: [] })),
  }))
  const tree = packTrees(roots, model.imageToken)
  const dims = [tree.images, tree.length]
  const groups = samples.flat()
  const first = cache.next
  const outputs = await model.extend(cache, {
    ids: i32(tree.ids, dims),
    positions: i32(tree.positions, tree.positionDims),
    featureIndex: i32(tree.featureIndex, dims),
    features,
    bias: treeBias(tree, cache.width, model.masked),
    ...samplingFeeds(tree.promptEnds, groups),
  })
  const starts: Omit<Node, 'token'>[] = images.flatMap(({ prefix, positions, prompts }, image) => {
    const behind = positionBehind({ prefix, positions })
    let at = first + prefix.length
    return prompts.map((prompt, p) => {
      const visible: [number, number][] = [
        [first, first + prefix.length],
        [at, at + prompt.tokens.length],
      ]
      at += prompt.tokens.length
      return { image, position: behind + prompt.tokens.length, visible, samples: samples[image]![p]! }
    })
  })
  return branch(model, starts, outputs)
}

/** [I, N, T+N]: nothing of the empty cache, then each token and its ancestors. */
function treeBias({ images, length, ends }: PackedTree, past: number, masked: number): HostTensor<'float32'> {
  const width = past + length
  const bias = new Float32Array(images * length * width).fill(masked)
  for (let image = 0; image < images; image++)
    for (let key = 0; key < length; key++)
      for (let query = key; query < ends[image * length + key]!; query++)
        bias[(image * length + query) * width + past + key] = 0
  return f32(bias, [images, length, width])
}

/** One token for every node; it is text, so that its position is the same on every axis. */
async function step(
  model: GenerationModel,
  nodes: Node[],
  cache: KeyValueCache,
  { images, axes, features }: Batch,
): Promise<Node[]> {
  const perImage: Node[][] = Array.from({ length: images }, () => [])
  for (const node of nodes) perImage[node.image]!.push(node)
  const width = perImage.reduce((most, list) => Math.max(most, list.length), 0)
  const ids = new Int32Array(images * width)
  const positions = new Int32Array(axes * images * width)
  const past = cache.width
  const bias = new Float32Array(images * width * (past + width)).fill(model.masked)
  const rows: number[] = []
  const ordered: Node[] = []
  const own: number[] = []
  perImage.forEach((list, image) => {
    for (let s = 0; s < width; s++) {
      const row = image * width + s
      bias[row * (past + width) + past + s] = 0
      const node = list[s]
      if (!node) continue
      ids[row] = node.token
      for (let axis = 0; axis < axes; axis++) positions[axis * images * width + row] = node.position
      for (const [from, to] of node.visible) bias.fill(0, row * (past + width) + from, row * (past + width) + to)
      rows.push(row)
      ordered.push(node)
      own.push(cache.next + s)
    }
  })
  const groups = ordered.map((n) => n.samples)
  const outputs = await model.extend(cache, {
    ids: i32(ids, [images, width]),
    positions: i32(positions, axes === 1 ? [images, width] : [axes, images, width]),
    featureIndex: i32(new Int32Array(images * width).fill(-1), [images, width]),
    features,
    bias: f32(bias, [images, width, past + width]),
    ...samplingFeeds(rows, groups),
  })
  const parents = ordered.map((node, i) => ({
    ...node,
    position: node.position + 1,
    visible: [...node.visible, [own[i]!, own[i]! + 1] as const],
  }))
  return branch(model, parents, outputs)
}

/** Rows to sample at, a uniform number for each sample of each row, and the temperatures unless all are 1. */
function samplingFeeds(rows: readonly number[], groups: readonly (readonly Sample[])[]): TensorMap {
  const most = groups.reduce((n, g) => Math.max(n, g.length), 1)
  const uniforms = new Float32Array(rows.length * most)
  const inverse = groups.map(([first]) => inverseTemperature(first?.prompt.temperature ?? 1))
  groups.forEach((group, row) =>
    group.forEach((s, g) => {
      const greedy = inverse[row] === GREEDY.inverseTemperature
      uniforms[row * most + g] = greedy ? GREEDY.uniform : uniform(s.randomKey, s.index, s.tokens.length)
    }),
  )
  return {
    rows: i32(rows, [rows.length]),
    uniforms: f32(uniforms, [rows.length, most]),
    ...(inverse.some((x) => x !== 1) && { inverseTemperature: f32(inverse, [rows.length, 1]) }),
  }
}

/** Temperatures so low that they round to the greedy one are greedy. */
function inverseTemperature(temperature: number): number {
  return temperature * GREEDY.inverseTemperature <= 1 ? GREEDY.inverseTemperature : 1 / temperature
}

/** Appends the sampled tokens and groups the samples that go on by their token. */
function branch(
  model: GenerationModel,
  parents: readonly Omit<Node, 'token'>[],
  { sampled, logprobs }: Sampled,
): Node[] {
  const most = sampled.dims[1]!
  return parents.flatMap((parent, row) => {
    const children = new Map<number, Sample[]>()
    parent.samples.forEach((sample, g) => {
      const token = Number(sampled.data[row * most + g])
      sample.tokens.push(token)
      sample.logprobs.push(Number(logprobs.data[row * most + g]))
      sample.finished = model.endTokens.has(token)
      model.onToken?.(sample.prompt, sample.index, sample)
      if (sample.finished || sample.tokens.length >= sample.prompt.maxNewTokens) return
      const list = children.get(token)
      if (list) list.push(sample)
      else children.set(token, [sample])
    })
    return [...children].map(([token, samples]) => ({ ...parent, token, samples }))
  })
}
