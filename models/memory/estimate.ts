/** What a model and its training take, by arithmetic on sizes: known before anything is allocated. Pure. */

import type { Holding, Holdings } from '../vlm/weight-holding.ts'

/** Numbers of weights by the session that holds them, and how many of each are trained. */
export interface WeightCounts {
  readonly vision: Part
  readonly text: Part
  readonly embedding: Part
  readonly head: Part
  /** The head is the embedding: counted there, and held by the sessions of both. */
  readonly tied: boolean
  /** Of a LoRA adapter, beside the frozen weights. */
  readonly adapter: number
  /** Bytes of a weight in the files: 4, 2, or between where they mix. */
  readonly storedBytes: number
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
/** The vision tower. */
export interface VisionSizes {
  readonly layers: number
  readonly hidden: number
  /** Values of the inner width of a layer, gates included. */
  readonly intermediate: number
  readonly heads: number
}

/** A picture as the processor of the family prepares it. */
export interface PictureSizes {
  /** Tokens of the prompt: rows of image features. */
  readonly features: number
  /** float32 values of its pixels. */
  readonly values: number
  readonly patches: number
  /** Patches that go through the tower in one pass, of this picture and others. */
  readonly passPatches: number
  /** Patches that a patch attends to with scores that are written, in the mean of the layers; then for a gradient. */
  readonly attended: number
  readonly attendedTrained: number
}

/** What is done with the model. */
export interface Workload {
  readonly picture: PictureSizes
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
/** Node, its modules, onnxruntime, sharp; and what the collector of garbage has not yet taken back. */
const PROCESS_BYTES = 280 * 2 ** 20
/** What an arena takes beside what is asked of it. */
const ARENA = 1.15
const RUN_BYTES = 130 * 2 ** 20

export function estimateMemory(
  counts: WeightCounts,
  sizes: LayerSizes,
  work: Workload,
  limits: Limits,
  holdings: Holdings,
): MemoryEstimate {
  // Sessions keep what they once needed: that of different ones adds up.
  const activations =
    trainBytes(counts, sizes, work, limits, holdings) +
    visionBytes(sizes, work) +
    generateBytes(sizes, work, limits) +
    widenedBytes(counts, sizes, work, holdings)
  return {
    weights: weightBytes(counts, work, holdings),
    optimizer: optimizerBytes(counts, work),
    activations: ARENA * activations,
    caches: cacheBytes(sizes, work, limits),
    process: PROCESS_BYTES + (work.run ? RUN_BYTES : 0),
  }
}

export const totalBytes = (e: MemoryEstimate): number => Object.values(e).reduce((sum: number, n: number) => sum + n, 0)

const trainedOf = ({ vision, text, embedding, head, adapter }: WeightCounts): number =>
  vision.trained + text.trained + embedding.trained + head.trained + adapter

const headOf = ({ tied, embedding, head }: WeightCounts): number => (tied ? embedding : head).frozen

/** Passes that have a session with the text model for training: the update, and the scores of the reference. */
const trainSessions = ({ parts, reference }: Workload): number => (parts === 0 ? 0 : reference ? 2 : 1)

/**
 * Trained weights in both threads. Frozen ones in every session that copies them; pages of the files that are read while
 * sessions run count once, whoever maps them.
 */
function weightBytes(counts: WeightCounts, work: Workload, holdings: Holdings): number {
  const { vision, text, embedding, storedBytes } = counts
  const copied = (n: number, holding: Holding) =>
    holding === 'packed' || (holding === 'plain' && storedBytes < FLOAT) ? FLOAT * n : 0
  const body = text.frozen + headOf(counts)
  const copies =
    copied(vision.frozen, holdings.vision) +
    copied(body, holdings.generate) +
    trainSessions(work) * copied(body, holdings.train)
  const mapped = (n: number, uses: readonly Holding[]) => (uses.some((use) => copied(1, use) === 0) ? n : 0)
  // Beside the exact ones, which evaluations sample from; the table is in memory with them.
  const { roundedBytes = 0 } = work
  const rounded = roundedBytes === 0 ? 0 : roundedBytes * body + FLOAT * embedding.frozen
  const training = trainSessions(work) > 0 ? [holdings.train] : []
  const pages =
    storedBytes *
    (embedding.frozen +
      mapped(vision.frozen, [holdings.vision]) +
      mapped(counts.tied ? text.frozen : body, [holdings.generate, ...training]))
  return copies + pages + rounded + 2 * FLOAT * trainedOf(counts)
}

/** float32 copies of stored weights while they are used: the head and about a layer, in each session. */
function widenedBytes(counts: WeightCounts, { text, vision }: LayerSizes, work: Workload, holdings: Holdings): number {
  if (counts.storedBytes === FLOAT) return 0
  const layer = (counts.text.frozen + counts.text.trained) / text.layers
  const perSession = FLOAT * (headOf(counts) + (counts.text.frozen > 0 ? layer : 0))
  const tower = holdings.vision === 'stored' ? (FLOAT * counts.vision.frozen) / vision.layers : 0
  const sessions = (holdings.generate === 'stored' ? 1 : 0) + (holdings.train === 'stored' ? trainSessions(work) : 0)
  return tower + sessions * perSession
}

/** Gradients of the parts and their sum, AdamW's moments old and new; of a run also versions and what travels. */
function optimizerBytes(counts: WeightCounts, { parts, run }: Workload): number {
  if (parts === 0) return 0
  return FLOAT * trainedOf(counts) * (2 + 2 + 3 + (run ? Math.min(parts, 4) + 5 : 0))
}

/**
 * What a backward pass keeps of each token: about seven vectors of the residual width and four of the inner one in every
 * layer, and the attention; with recomputation one vector in every layer, and the rest of one layer.
 */
function trainBytes(
  counts: WeightCounts,
  { text, vision }: LayerSizes,
  work: Workload,
  limits: Limits,
  { recompute }: Holdings,
): number {
  if (work.parts === 0) return 0
  const { layers, hiddenSize, intermediate, heads, vocab } = text
  const tree = treeTokens(work)
  const perToken = FLOAT * layers * (10 * hiddenSize + 6 * intermediate)
  const bound = Math.max(limits.leastTrainTokens, Math.floor(limits.activationBytes / perToken))
  const tokens = Math.max(tree, Math.min(bound, tree * work.images))
  const again = recompute === 'all'
  const layer = tokens * (7 * hiddenSize + 4 * intermediate) + heads * tokens * Math.min(tree, tokens)
  // The layer that the backward pass is at, beside what is kept of all.
  const passing = tokens * (4 * hiddenSize + 4 * intermediate) + 2 * heads * tokens * Math.min(tree, tokens)
  const kept = again ? layer + layers * tokens * hiddenSize : layers * layer
  const predicted = Math.ceil((tokens * predictedTokens(work)) / tree)
  const chunks = Math.min(8, Math.ceil(vocab / 4096))
  const logits = ((again ? 3 : chunks + 2) * predicted * vocab) / chunks
  const pictures = Math.max(1, Math.floor(tokens / tree))
  const trained = counts.vision.trained > 0 ? pictures * towerValues(vision, work.picture, again) : 0
  return FLOAT * (kept + passing + logits + trained)
}

/** What a backward pass keeps of a picture in the vision tower. */
function towerValues(vision: VisionSizes, { patches, attendedTrained }: PictureSizes, again: boolean): number {
  const layer = patches * (7 * vision.hidden + 3 * vision.intermediate + vision.heads * attendedTrained)
  return again ? 2 * layer + vision.layers * patches * vision.hidden : (vision.layers + 1) * layer
}

const predictedTokens = ({ prompts, samples, newTokens }: Workload): number => prompts * samples * newTokens

/** Of the token tree of one picture. */
const treeTokens = (work: Workload): number =>
  work.picture.features + work.prompts * work.promptTokens + predictedTokens(work)

/** One pass through the vision tower; what one layer needs. */
function visionBytes({ vision }: LayerSizes, { picture }: Workload): number {
  const { passPatches, attended } = picture
  return FLOAT * passPatches * (6 * vision.hidden + 3 * vision.intermediate + 2 * vision.heads * attended)
}

/** A layer over the prefixes and prompts of a batch, and the probabilities of the next tokens. */
function generateBytes({ text }: LayerSizes, work: Workload, limits: Limits): number {
  const prompt = work.picture.features + work.prompts * work.promptTokens
  const rows = Math.max(prompt, Math.min(limits.generateTokens / treeTokens(work), work.images) * prompt)
  const layer = rows * (6 * text.hiddenSize + 3 * text.intermediate + 2 * text.heads * prompt)
  const sampled = 5 * Math.min(work.images * work.prompts * work.samples, 256) * text.vocab
  return FLOAT * (layer + sampled)
}

/** Keys and values of a batch of samples while they grow, pictures and their features. */
function cacheBytes({ text }: LayerSizes, work: Workload, limits: Limits): number {
  const perToken = FLOAT * 2 * text.layers * text.kvHeads * text.headDim
  const columns = treeTokens(work)
  const bound = Math.max(columns, Math.min(limits.generateTokens, Math.floor(limits.keysBytes / perToken)))
  const keys = 1.5 * perToken * Math.min(bound, columns * work.images)
  const { values, features } = work.picture
  const pixels = work.pictures * values * (FLOAT + 1)
  const rows = work.pictures * features * text.hiddenSize * FLOAT
  return keys + Math.min(limits.cacheBytes, pixels) + Math.min(limits.cacheBytes, rows)
}
