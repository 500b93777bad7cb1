/** A vision-language model as a `Model`: text and pictures in, completions and gradients out. Runs on the calling thread. */
import { LRUCache } from 'lru-cache'
import { generate, type GenerationModel, type ImageRequests } from '../generate/generate.ts'
import { fullGrpoConfig, type GrpoConfig } from '../losses/grpo-config.ts'
import { type Precision, PRECISIONS } from '../layers/precision.ts'
import { addMetrics } from '../losses/metrics.ts'
import type {
  GenerateRequest,
  Generated,
  ImageSource,
  Model,
  PolicyGradient,
  PolicyGroup,
  SampledToken,
} from '../model.ts'
import { packedLength, packTrees, type TreeRoot } from '../tree/pack.ts'
import { f32, type HostTensor, type Weights } from '../tensor.ts'
import { addWeights, checkSameShapes } from './weights.ts'
import type { Architecture, Picture, PictureLayout, Processor } from './family.ts'
import { batches, groupByImage, type ImageGroup } from './image-groups.ts'
import type { ImageInput, Network, PolicyRow } from './network.ts'
import { readPicture } from './pictures.ts'
import { stackRows } from './stack.ts'

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

/** The token tree of a group; features are numbered in the batch that it becomes part of. */
interface Planned<T> extends ImageGroup<T> {
  readonly root: TreeRoot
}

/** What `openModel` found out about a checkpoint. */
export interface LoadedWeights {
  /** Trainable weights of the frozen reference (adapter off), for the KL term and for nothing else. */
  readonly base: Weights
  /** Whether an update changes image features; frozen ones are computed once per picture. */
  readonly visionTrained: boolean
  /** Number of all parameters. */
  readonly total: number
  /** Canonical name → name in the checkpoint's files. */
  readonly storedNames: ReadonlyMap<string, string>
  /** Precision in which requests marked as rollouts are sampled. */
  readonly rollouts: Precision
}

export class VlmModel implements Model {
  readonly family: string
  readonly parameters: Model['parameters']
  readonly storedNames: LoadedWeights['storedNames']
  readonly #base: Weights
  readonly #visionTrained: boolean
  readonly #rollouts: Precision
  readonly #pictures = new LRUCache<string, Picture>({
    maxSize: CACHE_BYTES,
    sizeCalculation: ({ inputs, uint8 }) =>
      Object.values(inputs).reduce((n, { data }) => n + data.byteLength, uint8.byteLength),
  })
  /** Of every picture seen: prompts need no pixels. */
  readonly #layouts = new LRUCache<string, PictureLayout>({ max: 65_536 })
  readonly #features = new LRUCache<string, HostTensor<'float32'>>({
    maxSize: CACHE_BYTES,
    sizeCalculation: (t) => t.data.byteLength,
  })

  constructor(
    readonly network: Network,
    readonly processor: Processor,
    readonly device: string,
    { base, visionTrained, total, storedNames, rollouts }: LoadedWeights,
  ) {
    this.family = this.#architecture.family
    this.storedNames = storedNames
    this.#base = base
    this.#visionTrained = visionTrained
    this.#rollouts = rollouts
    const trainable = Object.values(base).reduce((n, t) => n + t.data.length, 0)
    this.parameters = { total, trainable }
  }

  trainable(): Weights {
    return this.network.weights
  }

  load(weights: Weights): void {
    checkSameShapes(this.#base, weights)
    this.network.weights = weights
    if (this.#visionTrained) this.#features.clear()
  }

  async generate(
    requests: readonly GenerateRequest[],
    onToken?: (token: SampledToken) => void,
  ): Promise<readonly Generated[]> {
    const results = new Array<Generated>(requests.length)
    const length = ({ root, entries }: Planned<GenerateRequest>) =>
      entries.reduce((n, { item }) => n + item.samples * item.maxNewTokens, packedLength(root))
    const of = (request: GenerateRequest) => (request.rollout ? this.#rollouts : 'fp32')
    for (const precision of PRECISIONS) {
      const indices = [...requests.keys()].filter((i) => of(requests[i]!) === precision)
      const planned = await this.#plan(indices.map((i) => requests[i]!))
      for (const { entries } of planned)
        entries.forEach(({ item, index }, e) => (entries[e] = { item, index: indices[index]! }))
      for (const batch of batches(planned, length, this.#generateTokens))
        await this.#generate(batch, precision, results, onToken)
    }
    return results
  }

  async logprobs(groups: readonly PolicyGroup[]): Promise<readonly (readonly number[])[][]> {
    const results = new Array<(readonly number[])[]>(groups.length)
    for (const batch of batches(await this.#plan(groups), ({ root }) => packedLength(root), this.#trainTokens)) {
      const { roots, image } = await this.#assemble(batch, this.#visionTrained)
      const { logprobs } = await this.network.score(packTrees(roots, this.#architecture.imageTokenId), image)
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
      const { roots, image } = await this.#assemble(batch, this.#visionTrained)
      const tree = packTrees(roots, this.#architecture.imageTokenId)
      const ref = config.beta === 0 ? null : (await this.network.score(tree, image, this.#base)).logprobs
      const rows: PolicyRow[] = batch
        .flatMap((g) => g.entries.flatMap(({ item }) => item.completions.map((c) => ({ ...c, ...roleOf(item) }))))
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

  get #architecture(): Architecture {
    return this.network.context.architecture
  }

  get #generateTokens(): number {
    const { layers, kvHeads, headDim } = this.#architecture.text
    return Math.min(GENERATE_TOKENS, Math.floor(CACHED_KEYS_BYTES / (4 * 2 * layers * kvHeads * headDim)))
  }

  /** Kept of a token: about ten vectors of the residual width and six of the inner one in every layer. */
  get #trainTokens(): number {
    const { layers, hiddenSize, intermediate } = this.#architecture.text
    const bytes = 4 * layers * (10 * hiddenSize + 6 * intermediate)
    return Math.max(LEAST_TRAIN_TOKENS, Math.floor(ACTIVATION_BYTES / bytes))
  }

  async #generate(
    batch: readonly Planned<GenerateRequest>[],
    precision: Precision,
    results: Generated[],
    onToken?: (token: SampledToken) => void,
  ): Promise<void> {
    const { roots, image } = await this.#assemble(batch, false)
    const requests: ImageRequests[] = batch.map(({ entries }, i) => ({
      ...roots[i]!,
      prompts: entries.map(({ item }, p) => ({ ...item, tokens: roots[i]!.prompts[p]!.tokens })),
    }))
    const hidden = this.#architecture.text.hiddenSize
    const features = image.kind === 'given' ? image.features : f32(new Float32Array(hidden), [1, hidden])
    const indices = batch.map(({ entries }) => entries.map(({ index }) => index))
    const listening = onToken && { onToken: this.#listener(requests, indices, onToken) }
    const sampled = await generate({ ...this.network.generation(precision), ...listening }, requests, features)
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
        const layout = image && (await this.#layout(image))
        const split = entries.map(({ item }) => this.processor.prompts.splitPrompt(item.prompt, layout))
        const prompts = entries.map(({ item }, p) => ({
          tokens: split[p]!.suffix,
          completions: item.completions?.map((c) => c.tokens) ?? [],
        }))
        const { prefix } = split[0]!
        const positions = this.#architecture.positions?.(prefix, layout ? [layout] : [])
        return { image, entries, root: { prefix, ...(positions && { positions }), firstFeature: 0, prompts } }
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
      if (image) firstFeature += (await this.#layout(image)).features
    }
    if (shown.length === 0) return { roots, image: { kind: 'none' } }
    if (!asPixels) return { roots, image: { kind: 'given', features: await this.#featuresOf(shown) } }
    const pictures = await Promise.all(shown.map((image) => this.#picture(image)))
    return { roots, image: { kind: 'pixels', input: this.#architecture.vision.join(pictures) } }
  }

  async #layout(image: ImageSource): Promise<PictureLayout> {
    let layout = this.#layouts.get(image.key)
    if (!layout) {
      layout = (await this.#picture(image)).layout
      this.#layouts.set(image.key, layout)
    }
    return layout
  }

  async #picture(image: ImageSource): Promise<Picture> {
    let picture = this.#pictures.get(image.key)
    if (!picture) {
      picture = await readPicture(this.processor, await image.read(), image.key)
      this.#pictures.set(image.key, picture)
    }
    return picture
  }

  /** Features of pictures in order; kept for the whole run, or until the weights change where the vision tower is trained. */
  async #featuresOf(images: readonly ImageSource[]): Promise<HostTensor<'float32'>> {
    const found = new Map(images.map(({ key }) => [key, this.#features.get(key)]))
    const missing = images.filter(({ key }) => !found.get(key))
    if (missing.length > 0) {
      const pictures = await Promise.all(missing.map((image) => this.#picture(image)))
      const computed = await this.network.features(this.#architecture.vision.passes(pictures))
      const width = computed.dims[1]!
      let row = 0
      for (const image of missing) {
        const rows = (await this.#layout(image)).features
        const own = f32(computed.data.slice(row * width, (row + rows) * width), [rows, width])
        found.set(image.key, own)
        this.#features.set(image.key, own)
        row += rows
      }
    }
    return stackRows(images.map(({ key }) => found.get(key)!))
  }
}

const roleOf = ({ role }: PolicyGroup): { role?: string } => (role === undefined ? {} : { role })

/** Spaces at the end may be cut off, and the beginning of a character has no text yet. */
const settledText = (text: string): string => text.trimStart().replace(/[\s\uFFFD]+$/, '')
