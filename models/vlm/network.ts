/** Sessions of one model: compiled on first use, run on tokens and pixels. Knows nothing of text, files or messages. */
import { equal, gather, mul, neg, reduceSum, where } from '../graph/ops.ts'
import { DeviceCache } from '../generate/device-cache.ts'
import type { GenerationModel, Sampled } from '../generate/generate.ts'
import { HostCache } from '../generate/host-cache.ts'
import type { KeyValueCache } from '../generate/key-value-cache.ts'
import { type FullGrpoConfig } from '../losses/grpo-config.ts'
import { grpoLoss } from '../losses/grpo.ts'
import type { Precision } from '../layers/precision.ts'
import { MASKED } from '../layers/text.ts'
import { ResidentWeights } from '../runtime/resident-weights.ts'
import { hasOwnMemory, Session, type SessionOptions } from '../runtime/session.ts'
import type { PackedTree } from '../tree/pack.ts'
import { f32, type HostTensor, i32, isHost, type TensorMap, type Tensors, type Weights } from '../tensor.ts'
import { concatFloats } from './stack.ts'
import type { VisionInput } from './family.ts'
import {
  type BuiltGraph,
  extendGraph,
  type FeatureSource,
  type GraphContext,
  scoreTree,
  visionGraph,
  withGradients,
} from './graphs.ts'
import { samplerGraph } from './sampler.ts'
import { prepacks, type SessionUse } from './weight-holding.ts'

/** Image input of a scoring pass: features (frozen vision) or what they are made of (trained vision), or neither. */
export type ImageInput =
  | { readonly kind: 'given'; readonly features: HostTensor<'float32'> }
  | { readonly kind: 'pixels'; readonly input: VisionInput }
  | { readonly kind: 'none' }

/** A completion of the packed tree as the policy loss sees it; spans of the tree in the same order. */
export interface PolicyRow {
  readonly advantage: number
  readonly weight: number
  readonly count: number
  /** Sampler's logprobs, one per token; null = the policy itself sampled it. */
  readonly logprobs: readonly number[] | null
  /** As in a `PolicyGroup`. */
  readonly role?: string
  /** Base model's logprobs when the loss has a KL term. */
  readonly refLogprobs?: readonly number[]
}

export interface Scored {
  /** Per completion, per token. */
  readonly logprobs: readonly (readonly number[])[]
  readonly entropies: readonly (readonly number[])[]
}

export interface UpdateResult {
  readonly gradients: Weights
  readonly loss: number
  readonly metrics: Readonly<Record<string, number>>
}

/** Vocabularies up to this size are scored in one piece, larger ones in chunks of predicted tokens. */
const CHUNK_VOCAB = 4096
const MOST_CHUNKS = 8

/** Multiplications of an MLP layer: for one token of models small enough to have two sessions, and for all tokens of a small step. */
const SMALL_LAYER = 2 ** 18
const SMALL_PRODUCT = 2 ** 25

export class Network {
  readonly #sessions = new Map<string, Promise<Session>>()
  readonly #onDevice: boolean
  readonly #resident: ResidentWeights
  #weights: Weights

  readonly context: GraphContext

  constructor(
    context: GraphContext,
    weights: Weights,
    private readonly options: SessionOptions,
  ) {
    this.#weights = weights
    this.#onDevice = hasOwnMemory(options.device)
    this.context = { ...context, shared: this.#onDevice }
    this.#resident = new ResidentWeights(options)
  }

  /** Current trainable weights; replaced as a whole. */
  get weights(): Weights {
    return this.#weights
  }

  set weights(weights: Weights) {
    if (weights !== this.#weights) void this.#resident.drop(this.#weights)
    this.#weights = weights
  }

  /** Weights as sessions take them: in a device's own memory, those that change and those that do not, uploaded once. */
  async #feeds(weights: Weights = this.#weights): Promise<Tensors> {
    if (!this.#onDevice) return weights
    return { ...(await this.#resident.feeds(this.context.frozen)), ...(await this.#resident.feeds(weights)) }
  }

  /** Image features float32 [F, hidden] of several passes, one after the other. */
  async features(passes: readonly VisionInput[]): Promise<HostTensor<'float32'>> {
    const parts: Float32Array[] = []
    for (const input of passes) {
      const build = () => visionGraph(this.context, input)
      const session = await this.#session('vision', `vision ${input.graph}`, build, { spin: !this.#small })
      const result = await session.run({ ...(await this.#feeds()), ...input.feeds })
      parts.push(result.features!.data as Float32Array)
    }
    const hidden = this.context.architecture.text.hiddenSize
    return f32(concatFloats(parts), [parts.reduce((n, p) => n + p.length, 0) / hidden, hidden])
  }

  /** The face that the sampler works with. */
  generation(precision: Precision = 'fp32'): GenerationModel {
    const { text, imageTokenId, eosTokenIds } = this.context.architecture
    return {
      imageToken: imageTokenId,
      endTokens: new Set(eosTokenIds),
      masked: MASKED,
      cache: (images, most) =>
        this.#onDevice ? new DeviceCache({ ...text, images }) : new HostCache({ ...text, images }, most),
      extend: (cache, feeds) => this.#extend(cache, feeds, precision),
    }
  }

  /** New tokens, then samples at their rows. On a device nothing but the samples leaves it. */
  async #extend(cache: KeyValueCache, feeds: TensorMap, precision: Precision): Promise<Sampled> {
    const { ids } = feeds
    const how = { spin: !this.#small, ...this.#threadsFor(ids!.data.length) }
    const graph = () => extendGraph(this.context, this.#onDevice ? 'append' : 'beside', precision)
    const session = await this.#session('generate', `extend ${precision}`, graph, { ...how, resident: () => true })
    const weights = await this.#feeds()
    const { hidden, ...keys } = await session.runOn({ ...weights, ...feeds, ...cache.feeds() })
    cache.append(keys, ids!.dims[1]!)
    const temperatures = feeds['inverseTemperature'] ? 'any' : 'one'
    try {
      const build = () => samplerGraph(this.context, temperatures, precision)
      const head = await this.#session('generate', `sample ${temperatures} ${precision}`, build, how)
      const { sampled, logprobs } = await head.run({ ...weights, ...feeds, hidden: hidden! })
      return { sampled: sampled!, logprobs: logprobs! }
    } finally {
      if (!isHost(hidden!)) hidden!.dispose()
    }
  }

  /** Operators of small models are too short to wait for by spinning: beside them the actors of a run need the cores. */
  get #small(): boolean {
    const { hiddenSize, intermediate } = this.context.architecture.text
    return hiddenSize * intermediate <= SMALL_LAYER
  }

  /** Small steps of small models are faster on one thread: each of their operators is shorter than a handover. */
  #threadsFor(tokens: number): SessionOptions {
    const { hiddenSize, intermediate } = this.context.architecture.text
    return this.#small && hiddenSize * intermediate * tokens <= SMALL_PRODUCT ? { threads: 1 } : {}
  }

  /** Log-probabilities and entropies of the completions of a packed tree under `weights` (default: the current ones). */
  async score(tree: PackedTree, image: ImageInput, weights: Weights = this.weights): Promise<Scored> {
    const chunks = this.#chunks
    const session = await this.#session('train', `score ${sourceKey(image)}`, () => {
      const { graph, logps, entropies } = scoreTree(this.context, sourceOf(image), chunks)
      return { graph, outputs: { logps, entropies } }
    })
    const result = await session.run({
      ...(await this.#feeds(weights)),
      ...treeFeeds(tree, chunks),
      ...imageFeeds(image),
    })
    const [logps, entropies] = [result.logps!.data as Float32Array, result.entropies!.data as Float32Array]
    const cut = (data: Float32Array) => tree.spans.map(({ start, length }) => [...data.subarray(start, start + length)])
    return { logprobs: cut(logps), entropies: cut(entropies) }
  }

  /** Gradient of the policy loss: Σ weight · term over the completions of the tree. */
  async policyGradient(
    tree: PackedTree,
    image: ImageInput,
    rows: readonly PolicyRow[],
    config: FullGrpoConfig,
  ): Promise<UpdateResult> {
    const chunks = this.#chunks
    const session = await this.#session('train', `policy ${sourceKey(image)} ${JSON.stringify(config)}`, () =>
      policyGraph(this.context, sourceOf(image), chunks, config),
    )
    const roles = rolesOf(rows)
    const feeds = { ...treeFeeds(tree, chunks), ...imageFeeds(image), ...policyFeeds(tree, rows, roles) }
    return updateResult(await session.run({ ...(await this.#feeds()), ...feeds }), roles)
  }

  /** Gradient of weighted cross-entropy: −Σ weight · logprob over predicted tokens; weights in the order of the tree. */
  async supervisedGradient(tree: PackedTree, image: ImageInput, weights: Float32Array): Promise<UpdateResult> {
    const chunks = this.#chunks
    const session = await this.#session('train', `supervised ${sourceKey(image)}`, () => {
      const scores = scoreTree(this.context, sourceOf(image), chunks)
      const tokenWeights = scores.graph.input('tokenWeights', 'float32', scores.logps.dims)
      const loss = neg(reduceSum(mul(scores.logps, tokenWeights)))
      return {
        graph: scores.graph,
        outputs: { loss, logps: scores.logps, ...withGradients(this.context.holdings, scores.params, loss) },
      }
    })
    const padded = new Float32Array(chunks * chunkLength(tree, chunks))
    padded.set(weights)
    const feeds = { ...(await this.#feeds()), ...treeFeeds(tree, chunks), ...imageFeeds(image) }
    return updateResult(await session.run({ ...feeds, tokenWeights: f32(padded, [padded.length]) }))
  }

  async dispose(): Promise<void> {
    await this.#resident.dispose()
    const sessions = await Promise.all(this.#sessions.values())
    this.#sessions.clear()
    await Promise.all(sessions.map((s) => s.release()))
  }

  /** Chunks of predicted tokens, logits of one of which exist at a time. One number, so that one session serves all. */
  get #chunks(): number {
    return Math.min(MOST_CHUNKS, Math.ceil(this.context.architecture.text.vocab / CHUNK_VOCAB))
  }

  #session(use: SessionUse, name: string, build: () => BuiltGraph, how: SessionOptions = {}): Promise<Session> {
    const options = { ...this.options, prepack: prepacks(this.context.holdings[use]), ...how }
    const key = `${name} ${options.threads}`
    let session = this.#sessions.get(key)
    if (!session) {
      const { graph, outputs } = build()
      session = Session.create(graph, outputs, { ...options, name })
      this.#sessions.set(key, session)
    }
    return session
  }
}

function policyGraph(context: GraphContext, source: FeatureSource, chunks: number, config: FullGrpoConfig): BuiltGraph {
  const { graph, params, logps, entropies } = scoreTree(context, source, chunks)
  const dense = (name: string) => graph.input(name, 'float32', ['R', 'T'])
  const perRow = (name: string) => graph.input(name, 'float32', ['R'])
  const cells = graph.input('cells', 'int32', ['R', 'T'])
  const sampler = dense('samplerLogps')
  const own = gather(logps, cells)
  const { loss, metrics, roleMetrics } = grpoLoss(
    {
      logps: own,
      entropies: gather(entropies, cells),
      mask: dense('mask'),
      // With a correction against the sampler the policy's own logprobs are the old ones, as in TRL; and where those of
      // the sampler are not given, which is NaN, the one value that does not equal itself.
      ...(config.sampler_correction === null
        ? { oldLogps: where(equal(sampler, sampler), sampler, own) }
        : { samplerLogps: sampler }),
      ...(config.beta !== 0 && { refLogps: dense('refLogps') }),
      advantages: perRow('advantages'),
      weights: perRow('weights'),
      counts: perRow('counts'),
      roles: graph.input('roles', 'float32', ['K', 'R']),
    },
    config,
  )
  const named = (kind: string, values: typeof metrics) =>
    Object.fromEntries(Object.entries(values).map(([name, v]) => [`${kind}:${name}`, v]))
  const figures = { ...named('metric', metrics), ...named('role', roleMetrics) }
  return { graph, outputs: { loss, ...figures, ...withGradients(context.holdings, params, loss) } }
}

const chunkLength = (tree: PackedTree, chunks: number): number =>
  Math.max(1, Math.ceil(tree.predictors.length / chunks))

function treeFeeds(tree: PackedTree, chunks: number): TensorMap {
  const dims = [tree.images, tree.length]
  const length = chunkLength(tree, chunks)
  const chunked = (values: Int32Array): HostTensor => {
    const padded = new Int32Array(chunks * length)
    padded.set(values)
    return i32(padded, [chunks, length])
  }
  return {
    ids: i32(tree.ids, dims),
    positions: i32(tree.positions, tree.positionDims),
    ends: i32(tree.ends, dims),
    featureIndex: i32(tree.featureIndex, dims),
    predictors: chunked(tree.predictors),
    targets: chunked(tree.targets),
  }
}

/** Names of the roles in rows; one without a name where there is none, since not every device takes empty tensors. */
function rolesOf(rows: readonly PolicyRow[]): readonly string[] {
  const names = [...new Set(rows.flatMap(({ role }) => role ?? []))].toSorted()
  return names.length > 0 ? names : ['']
}

function policyFeeds(tree: PackedTree, rows: readonly PolicyRow[], roles: readonly string[]): TensorMap {
  if (rows.length !== tree.spans.length)
    throw new RangeError(`${rows.length} policy rows for ${tree.spans.length} completions`)
  const count = rows.length
  const longest = Math.max(1, ...tree.spans.map((s) => s.length))
  const cells = new Int32Array(count * longest)
  const mask = new Float32Array(count * longest)
  const sampler = new Float32Array(count * longest)
  const ref = new Float32Array(count * longest)
  tree.spans.forEach(({ start, length }, r) => {
    for (let t = 0; t < length; t++) {
      cells[r * longest + t] = start + t
      mask[r * longest + t] = 1
      sampler[r * longest + t] = rows[r]!.logprobs?.[t] ?? NaN
      ref[r * longest + t] = rows[r]!.refLogprobs?.[t] ?? 0
    }
  })
  const dims = [count, longest]
  const column = (pick: (row: PolicyRow) => number) => f32(Float32Array.from(rows, pick), [count])
  return {
    cells: i32(cells, dims),
    mask: f32(mask, dims),
    samplerLogps: f32(sampler, dims),
    refLogps: f32(ref, dims),
    advantages: column((r) => r.advantage),
    weights: column((r) => r.weight),
    counts: column((r) => r.count),
    roles: f32(
      roles.flatMap((role) => rows.map((r) => (r.role === role ? r.count : 0))),
      [roles.length, count],
    ),
  }
}

const sourceOf = (image: ImageInput): FeatureSource => (image.kind === 'pixels' ? image : { kind: image.kind })

const sourceKey = (image: ImageInput): string => (image.kind === 'pixels' ? `pixels ${image.input.graph}` : image.kind)

function imageFeeds(image: ImageInput): TensorMap {
  if (image.kind === 'given') return { features: image.features }
  return image.kind === 'none' ? {} : image.input.feeds
}

function updateResult(outputs: TensorMap, roles: readonly string[] = []): UpdateResult {
  const gradients: Record<string, HostTensor<'float32'>> = {}
  const metrics: Record<string, number> = {}
  for (const [name, tensor] of Object.entries(outputs)) {
    if (name.startsWith('grad:')) gradients[name.slice(5)] = f32(tensor.data as Float32Array, tensor.dims)
    else if (name.startsWith('metric:')) metrics[name.slice(7)] = tensor.data[0] as number
    else if (name.startsWith('role:'))
      roles.forEach((role, k) => {
        if (role !== '') metrics[`${role}/${name.slice(5)}`] = tensor.data[k] as number
      })
  }
  return { gradients, metrics, loss: outputs.loss!.data[0] as number }
}
