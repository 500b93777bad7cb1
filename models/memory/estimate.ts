/** What a model and its training take, by arithmetic on sizes: known before anything is allocated. Pure. */

/** Numbers of float32 weights by the session that holds them, and how many of each are trained. */
export interface WeightCounts {
  readonly vision: Part
  readonly text: Part
  readonly embedding: Part
  readonly head: Part
  /** The head is the embedding: counted there, and held by the sessions of both. */
  readonly tied: boolean
  /** Of a LoRA adapter, beside the frozen weights. */
  readonly adapter: number
}
export interface Part {
  readonly frozen: number
  readonly trained: number
}

/** Sizes of the layers. */
export interface LayerSizes {
  readonly text: TextSizes
  readonly vision: VisionSizes
}
export interface TextSizes {
  readonly layers: number
  readonly hiddenSize: number
  readonly intermediate: number
  readonly heads: number
  readonly kvHeads: number
  readonly headDim: number
  readonly vocab: number
}
export interface VisionSizes {
  readonly layers: number
  readonly hidden: number
  readonly intermediate: number
  readonly heads: number
  readonly patch: number
}

/** What is done with the model. */
export interface Workload {
  /** Tiles of a picture, pixels a side of a tile, and tokens of a whole picture. */
  readonly tiles: number
  readonly tile: number
  readonly imageTokens: number
  /** Pictures that are worked on again and again: of the run when training. */
  readonly pictures: number
  /** Pictures, prompts of each and samples of each prompt, of one step; their lengths in tokens. */
  readonly images: number
  readonly prompts: number
  readonly samples: number
  readonly promptTokens: number
  readonly newTokens: number
  /** Gradient parts of a step, or 0: nothing is trained. */
  readonly parts: number
  /** The loss compares with the base. */
  readonly reference: boolean
  /** The Optimizer and the coders of a run are in this process too. */
  readonly run: boolean
  /** Bytes of a text weight in a second, rounded copy that rollouts come from; none if left out. */
  readonly roundedBytes?: number
}

/** Bytes. */
export interface MemoryEstimate {
  readonly weights: number
  readonly optimizer: number
  readonly activations: number
  readonly caches: number
  readonly process: number
}

/** The limits that the model file works with. */
export interface Limits {
  readonly activationBytes: number
  readonly leastTrainTokens: number
  readonly generateTokens: number
  readonly keysBytes: number
  readonly cacheBytes: number
}

const FLOAT = 4
/** onnxruntime keeps frozen weights as they are and once more in the order of its matrix products. */
const SESSION_COPIES = 2
/** Node, its modules, onnxruntime, sharp; and what the collector of garbage has not yet taken back. */
const PROCESS_BYTES = 220 * 2 ** 20
const RUN_BYTES = 130 * 2 ** 20

export function estimateMemory(
  counts: WeightCounts,
  sizes: LayerSizes,
  work: Workload,
  limits: Limits,
): MemoryEstimate {
  return {
    weights: weightBytes(counts, work),
    optimizer: optimizerBytes(counts, work),
    activations: Math.max(trainBytes(counts, sizes, work, limits), visionBytes(sizes, work)),
    caches: cacheBytes(sizes, work, limits),
    process: PROCESS_BYTES + (work.run ? RUN_BYTES : 0),
  }
}

export const totalBytes = (e: MemoryEstimate): number => Object.values(e).reduce((sum: number, n: number) => sum + n, 0)

const trainedOf = ({ vision, text, embedding, head, adapter }: WeightCounts): number =>
  vision.trained + text.trained + embedding.trained + head.trained + adapter

/** Once as they were read; frozen ones again in every session that uses them; trained ones in both threads. */
function weightBytes(counts: WeightCounts, { parts, reference, roundedBytes = 0 }: Workload): number {
  const { vision, text, embedding, head, tied } = counts
  const all = [vision, text, embedding, head].reduce((n, part) => n + part.frozen + part.trained, 0)
  const headFrozen = tied ? embedding.frozen : head.frozen
  // A table is not multiplied by: only layers are reordered.
  const body = SESSION_COPIES * text.frozen + embedding.frozen
  const scoring = (parts > 0 ? 1 : 0) + (parts > 0 && reference ? 1 : 0)
  const sessions =
    SESSION_COPIES * vision.frozen + (1 + scoring) * (body + (tied ? 0 : headFrozen)) + (tied ? headFrozen : 0)
  return FLOAT * (all + sessions + trainedOf(counts)) + roundedBytes * (text.frozen + headFrozen)
}

/** Gradients of the parts and their sum, AdamW's moments old and new; of a run also versions and what travels. */
function optimizerBytes(counts: WeightCounts, { parts, run }: Workload): number {
  if (parts === 0) return 0
  return FLOAT * trainedOf(counts) * (2 + 2 + 3 + (run ? Math.min(parts, 4) + 5 : 0))
}

/** The tokens of a pass, as the model file chooses them, and what a backward pass keeps of each. */
function trainBytes(counts: WeightCounts, { text, vision }: LayerSizes, work: Workload, limits: Limits): number {
  if (work.parts === 0) return 0
  const { layers, hiddenSize, intermediate, heads, vocab } = text
  const perToken = FLOAT * layers * (10 * hiddenSize + 6 * intermediate)
  const tree = treeTokens(work)
  const bound = Math.max(limits.leastTrainTokens, Math.floor(limits.activationBytes / perToken))
  const tokens = Math.max(tree, Math.min(bound, tree * work.images))
  const scores = 2 * FLOAT * layers * heads * tokens * Math.min(tree, tokens)
  const predicted = Math.ceil((tokens * predictedTokens(work)) / tree / Math.min(8, Math.ceil(vocab / 4096)))
  const logits = 3 * FLOAT * predicted * vocab
  const trainedVision = counts.vision.trained > 0
  const patches = (work.tile / vision.patch) ** 2
  const perPatch = vision.layers * (10 * vision.hidden + 4 * vision.intermediate + 2 * vision.heads * patches)
  const pictures = Math.max(1, Math.floor(tokens / tree))
  return perToken * tokens + scores + logits + (trainedVision ? FLOAT * pictures * work.tiles * patches * perPatch : 0)
}

const predictedTokens = ({ prompts, samples, newTokens }: Workload): number => prompts * samples * newTokens

/** Of the token tree of one picture. */
const treeTokens = (work: Workload): number =>
  work.imageTokens + work.prompts * work.promptTokens + predictedTokens(work)

/** A few tiles at a time through the vision tower; what one layer needs. */
function visionBytes({ vision }: LayerSizes, { tile }: Workload): number {
  const patches = (tile / vision.patch) ** 2
  const batch = Math.max(1, Math.floor((64 * 64) / tile ** 2))
  return FLOAT * batch * patches * (4 * vision.hidden + 3 * vision.intermediate + 2 * vision.heads * patches)
}

/** Keys and values of a batch of samples while they grow, pictures and their features. */
function cacheBytes({ text }: LayerSizes, work: Workload, limits: Limits): number {
  const perToken = FLOAT * 2 * text.layers * text.kvHeads * text.headDim
  const columns = treeTokens(work)
  const bound = Math.max(columns, Math.min(limits.generateTokens, Math.floor(limits.keysBytes / perToken)))
  const keys = 1.5 * perToken * Math.min(bound, columns * work.images)
  const pixels = work.pictures * work.tiles * 3 * work.tile ** 2 * (FLOAT + 1)
  const features = work.pictures * work.imageTokens * text.hiddenSize * FLOAT
  return keys + Math.min(limits.cacheBytes, pixels) + Math.min(limits.cacheBytes, features)
}
