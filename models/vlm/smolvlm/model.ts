/** SmolVLM / Idefics3 as a `Model`: text and pictures in, completions and gradients out. Runs on the calling thread. */
import { LRUCache } from 'lru-cache'
import { generate, type GenerationModel, type ImageRequests } from '../../generate/generate.ts'
import { fullGrpoConfig, type GrpoConfig } from '../../losses/grpo-config.ts'
import { addMetrics } from '../../losses/metrics.ts'
import type {
  GenerateRequest,
  Generated,
  ImageSource,
  Model,
  PolicyGradient,
  PolicyGroup,
  SampledToken,
} from '../../model.ts'
import { packedLength, packTrees, type TreeRoot } from '../../tree/pack.ts'
import { f32, type HostTensor, type Weights } from '../../tensor.ts'
import { addWeights, checkSameShapes } from '../weights.ts'
import { type ImageInput, type Network, type Pixels, type PolicyRow } from './network.ts'
import type { SmolVlmProcessor } from './processor.ts'
import type { ProcessedImage, TileGrid } from './tiles.ts'

/** Tokens (padding included) of one pass of the sampler, and memory for its keys and values. */
const GENERATE_TOKENS = 16_384
const CACHED_KEYS_BYTES = 512 * 2 ** 20
/**
 * Memory for what a backward pass needs of the forward pass: more tokens at once would not fit the processor's caches
 * either. Matrix products want the least number.
 */
const ACTIVATION_BYTES = 256 * 2 ** 20
const LEAST_TRAIN_TOKENS = 512
/** Memory for processed pictures and for their features. */
const CACHE_BYTES = 512 * 2 ** 20

interface Entry<T> {
  readonly item: T
  readonly index: number
}

/** Items about one picture; text-only items stand alone. */
interface ImageGroup<T> {
  readonly image: ImageSource | null
  readonly entries: Entry<T>[]
}

/** The token tree of a group; features are numbered in the batch that it becomes part of. */
interface Planned<T> extends ImageGroup<T> {
  readonly root: TreeRoot
}

export class SmolVlmModel implements Model {
  readonly family = 'smolvlm'
  readonly parameters: Model['parameters']
  readonly #pictures = new LRUCache<string, ProcessedImage>({
    maxSize: CACHE_BYTES,
    sizeCalculation: (p) => p.pixelValues.byteLength + p.uint8.byteLength,
  })
  /** Tiles of every picture seen: prompts need no pixels. */
  readonly #grids = new LRUCache<string, TileGrid & { readonly tiles: number }>({ max: 65_536 })
  readonly #features = new LRUCache<string, HostTensor<'float32'>>({
    maxSize: CACHE_BYTES,
    sizeCalculation: (t) => t.data.byteLength,
  })

  /**
   * @param base trainable weights of the frozen reference (adapter off), for the KL term and for nothing else.
   * @param visionTrained whether an update changes image features; frozen ones are computed once per picture.
   */
  constructor(
    readonly network: Network,
    readonly processor: SmolVlmProcessor,
    readonly device: string,
    private readonly base: Weights,
    private readonly visionTrained: boolean,
    total: number,
  ) {
    const trainable = Object.values(base).reduce((n, t) => n + t.data.length, 0)
    this.parameters = { total, trainable }
  }

  trainable(): Weights {
    return this.network.weights
  }

  load(weights: Weights): void {
    checkSameShapes(this.base, weights)
    this.network.weights = weights
    if (this.visionTrained) this.#features.clear()
  }

  async generate(
    requests: readonly GenerateRequest[],
    onToken?: (token: SampledToken) => void,
  ): Promise<readonly Generated[]> {
    const results = new Array<Generated>(requests.length)
    const planned = await this.#plan(requests)
    const length = ({ root, entries }: Planned<GenerateRequest>) =>
      entries.reduce((n, { item }) => n + item.samples * item.maxNewTokens, packedLength(root))
    for (const batch of batches(planned, length, this.#generateTokens)) await this.#generate(batch, results, onToken)
    return results
  }

  async logprobs(groups: readonly PolicyGroup[]): Promise<readonly (readonly number[])[][]> {
    const results = new Array<(readonly number[])[]>(groups.length)
    for (const batch of batches(await this.#plan(groups), ({ root }) => packedLength(root), this.#trainTokens)) {
      const { roots, image } = await this.#assemble(batch, this.visionTrained)
      const { logprobs } = await this.network.score(packTrees(roots, this.#imageToken), image)
      let at = 0
      for (const { item, index } of batch.flatMap((g) => g.entries)) {
        results[index] = logprobs.slice(at, at + item.completions.length)
        at += item.completions.length
      }
    }
    return results
  }

  async policyGradient(groups: readonly PolicyGroup[], loss: GrpoConfig): Promise<PolicyGradient> {
    const config = fullGrpoConfig(loss)
    const parts: PolicyGradient[] = []
    for (const batch of batches(await this.#plan(groups), ({ root }) => packedLength(root), this.#trainTokens)) {
      const { roots, image } = await this.#assemble(batch, this.visionTrained)
      const tree = packTrees(roots, this.#imageToken)
      const ref = config.beta === 0 ? null : (await this.network.score(tree, image, this.base)).logprobs
      const rows: PolicyRow[] = batch
        .flatMap((g) => g.entries.flatMap(({ item }) => item.completions))
        .map((c, i) => ({ ...c, count: c.count ?? 1, ...(ref && { refLogprobs: ref[i]! }) }))
      const result = await this.network.policyGradient(tree, image, rows, config)
      parts.push({ ...result, tokens: tree.tokens })
    }
    return {
      gradients: addWeights(parts.map((p) => p.gradients)),
      loss: parts.reduce((sum, p) => sum + p.loss, 0),
      metrics: addMetrics(parts.map((p) => p.metrics)),
      tokens: parts.reduce((sum, p) => sum + p.tokens, 0),
    }
  }

  async dispose(): Promise<void> {
    this.#pictures.clear()
    this.#features.clear()
    await this.network.dispose()
  }

  get #imageToken(): number {
    return this.network.context.config.imageTokenId
  }

  get #generateTokens(): number {
    const { layers, kvHeads, headDim } = this.network.context.config.text
    return Math.min(GENERATE_TOKENS, Math.floor(CACHED_KEYS_BYTES / (4 * 2 * layers * kvHeads * headDim)))
  }

  /** Kept of a token: about ten vectors of the residual width and six of the inner one in every layer. */
  get #trainTokens(): number {
    const { layers, hiddenSize, intermediate } = this.network.context.config.text
    const bytes = 4 * layers * (10 * hiddenSize + 6 * intermediate)
    return Math.max(LEAST_TRAIN_TOKENS, Math.floor(ACTIVATION_BYTES / bytes))
  }

  async #generate(
    batch: readonly Planned<GenerateRequest>[],
    results: Generated[],
    onToken?: (token: SampledToken) => void,
  ): Promise<void> {
    const { roots, image } = await this.#assemble(batch, false)
    const requests: ImageRequests[] = batch.map(({ entries }, i) => ({
      prefix: roots[i]!.prefix,
      firstFeature: roots[i]!.firstFeature,
      prompts: entries.map(({ item }, p) => ({ ...item, tokens: roots[i]!.prompts[p]!.tokens })),
    }))
    const hidden = this.network.context.config.text.hiddenSize
    const features = image.kind === 'given' ? image.features : f32(new Float32Array(hidden), [1, hidden])
    const indices = batch.map(({ entries }) => entries.map(({ index }) => index))
    const listening = onToken && { onToken: this.#listener(requests, indices, onToken) }
    const sampled = await generate({ ...this.network.generation(), ...listening }, requests, features)
    batch.forEach(({ entries }, i) => {
      entries.forEach(({ index }, p) => {
        results[index] = {
          promptTokens: requests[i]!.prefix.length + requests[i]!.prompts[p]!.tokens.length,
          samples: sampled[i]![p]!.map((s) => ({
            ...s,
            text: this.processor.tokenizer.decode(s.tokens, { skipSpecialTokens: true }).trim(),
          })),
        }
      })
    })
  }

  /** Names tokens by the request that they belong to, and decodes what they have become. */
  #listener(
    images: readonly ImageRequests[],
    indices: readonly (readonly number[])[],
    onToken: (token: SampledToken) => void,
  ): NonNullable<GenerationModel['onToken']> {
    const requests = new Map(images.flatMap(({ prompts }, i) => prompts.map((p, k) => [p, indices[i]![k]!] as const)))
    return (prompt, sample, { tokens, logprobs }) => {
      const position = tokens.length - 1
      const text = settledText(this.processor.tokenizer.decode(tokens, { skipSpecialTokens: true }))
      const [token, logprob] = [tokens[position]!, logprobs[position]!]
      onToken({ request: requests.get(prompt)!, sample, position, token, logprob, text })
    }
  }

  /** Token trees of items, those about one picture together. */
  #plan<T extends { readonly image: ImageSource | null; readonly prompt: string }>(
    items: readonly (T & { readonly completions?: PolicyGroup['completions'] })[],
  ): Promise<Planned<T>[]> {
    return Promise.all(
      groupByImage(items).map(async ({ image, entries }) => {
        const grid = image && (await this.#grid(image))
        const split = entries.map(({ item }) => this.processor.splitPrompt(item.prompt, grid))
        const prompts = entries.map(({ item }, p) => ({
          tokens: split[p]!.suffix,
          completions: item.completions?.map((c) => c.tokens) ?? [],
        }))
        return { image, entries, root: { prefix: split[0]!.prefix, firstFeature: 0, prompts } }
      }),
    )
  }

  /** The trees and pictures of a batch; as pixels where the vision tower is trained, else as features. */
  async #assemble(
    batch: readonly Planned<unknown>[],
    asPixels: boolean,
  ): Promise<{ roots: TreeRoot[]; image: ImageInput }> {
    const shown = batch.flatMap(({ image }) => (image ? [image] : []))
    let firstFeature = 0
    const roots: TreeRoot[] = []
    for (const { root, image } of batch) {
      roots.push({ ...root, firstFeature })
      if (image) firstFeature += (await this.#grid(image)).tiles * this.processor.imageSeqLen
    }
    if (shown.length === 0) return { roots, image: { kind: 'none' } }
    if (!asPixels) return { roots, image: { kind: 'given', features: await this.#featuresOf(shown) } }
    const pictures = await Promise.all(shown.map((image) => this.#picture(image)))
    return { roots, image: { kind: 'pixels', pixels: joinPixels(pictures) } }
  }

  async #grid(image: ImageSource): Promise<TileGrid & { readonly tiles: number }> {
    let grid = this.#grids.get(image.key)
    if (!grid) {
      const { rows, cols, tiles } = await this.#picture(image)
      grid = { rows, cols, tiles }
      this.#grids.set(image.key, grid)
    }
    return grid
  }

  async #picture(image: ImageSource): Promise<ProcessedImage> {
    let picture = this.#pictures.get(image.key)
    if (!picture) {
      picture = await this.processor.processImage(await image.read(), image.key)
      this.#pictures.set(image.key, picture)
    }
    return picture
  }

  /** Features of pictures in order; kept for the whole run, or until the weights change where the vision tower is trained. */
  async #featuresOf(images: readonly ImageSource[]): Promise<HostTensor<'float32'>> {
    const compute = async (some: readonly ImageSource[]) =>
      this.network.features(joinPixels(await Promise.all(some.map((image) => this.#picture(image)))))
    const found = new Map(images.map(({ key }) => [key, this.#features.get(key)]))
    const missing = images.filter(({ key }) => !found.get(key))
    if (missing.length > 0) {
      const computed = await compute(missing)
      const width = computed.dims[1]!
      let row = 0
      for (const image of missing) {
        const rows = (await this.#grid(image)).tiles * this.processor.imageSeqLen
        const own = f32(computed.data.slice(row * width, (row + rows) * width), [rows, width])
        found.set(image.key, own)
        this.#features.set(image.key, own)
        row += rows
      }
    }
    return stackRows(images.map(({ key }) => found.get(key)!))
  }
}

/** Spaces at the end may be cut off, and the beginning of a character has no text yet. */
const settledText = (text: string): string => text.trimStart().replace(/[\s\uFFFD]+$/, '')

function groupByImage<T extends { readonly image: ImageSource | null }>(items: readonly T[]): ImageGroup<T>[] {
  const groups = new Map<string, ImageGroup<T>>()
  items.forEach((item, index) => {
    const key = item.image?.key ?? `text ${index}`
    const group = groups.get(key)
    if (group) group.entries.push({ item, index })
    else groups.set(key, { image: item.image, entries: [{ item, index }] })
  })
  return [...groups.values()]
}

/** Cuts a list into runs of at most `limit` tokens after padding, at least one item each. */
function batches<T>(items: readonly T[], tokens: (item: T) => number, limit: number): T[][] {
  const cut: T[][] = []
  let widest = 0
  for (const item of items) {
    const last = cut.at(-1)
    const width = Math.max(widest, tokens(item))
    if (last && width * (last.length + 1) <= limit) {
      last.push(item)
      widest = width
    } else {
      cut.push([item])
      widest = tokens(item)
    }
  }
  return cut
}

function joinPixels(pictures: readonly ProcessedImage[]): Pixels {
  const { height, width } = pictures[0]!
  const data = new Float32Array(pictures.reduce((n, p) => n + p.pixelValues.length, 0))
  let at = 0
  for (const { pixelValues } of pictures) {
    data.set(pixelValues, at)
    at += pixelValues.length
  }
  return { data, height, width, tiles: pictures.reduce((n, p) => n + p.tiles, 0) }
}

function stackRows(tensors: readonly HostTensor<'float32'>[]): HostTensor<'float32'> {
  const width = tensors[0]!.dims[1]!
  const data = new Float32Array(tensors.reduce((n, t) => n + t.data.length, 0))
  let at = 0
  for (const t of tensors) {
    data.set(t.data, at)
    at += t.data.length
  }
  return f32(data, [data.length / width, width])
}
