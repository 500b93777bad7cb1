/** The memory of a run from its configuration and the headers of its checkpoint: no weight is read. */
import type { Config } from '../../configs/schema.ts'
import { openCheckpoint } from '../../models/io/safetensors.ts'
import {
  estimateMemory,
  type Limits,
  type MemoryEstimate,
  type Part,
  type WeightCounts,
  type Workload,
} from '../../models/memory/estimate.ts'
import { availableMemory } from '../../models/memory/available.ts'
import { type Alternative, checkFits } from '../../models/memory/refusal.ts'
import { sizeOf } from '../../models/tensor.ts'
import type { TrainMode } from '../../models/vlm/load-options.ts'
import { loadSmolVlmConfig, type SmolVlmConfig } from '../../models/vlm/smolvlm/config.ts'
import { loadSmolVlmProcessor, type SmolVlmProcessor } from '../../models/vlm/smolvlm/processor.ts'
import { maxSide, mostTiles } from '../../models/vlm/smolvlm/tiles.ts'
import { smolVlm } from '../../models/vlm/smolvlm/family.ts'
import { expectedWeights } from '../../models/vlm/smolvlm/weights.ts'
import { familyOf } from '../../models/vlm/registry.ts'
import { checkTensors, storedNames } from '../../models/vlm/stored-weights.ts'
import type { ExpectedWeight } from '../../models/layers/weights.ts'
import { trainMode } from '../evolve/train-mode.ts'

/** As models/vlm/model.ts bounds its work. */
const LIMITS: Limits = {
  activationBytes: 256 * 2 ** 20,
  leastTrainTokens: 512,
  generateTokens: 16_384,
  keysBytes: 512 * 2 ** 20,
  cacheBytes: 512 * 2 ** 20,
}

/** Sizes of a checkpoint, checked against its headers. */
export interface Sizes {
  readonly config: SmolVlmConfig
  readonly processor: SmolVlmProcessor
  readonly weights: readonly ExpectedWeight[]
}

/** Null for a family whose memory nobody has worked out yet. Throws CheckpointError as loading would. */
export async function readSizes(dir: string): Promise<Sizes | null> {
  if ((await familyOf(dir)) !== smolVlm) return null
  const config = await loadSmolVlmConfig(dir)
  const processor = await loadSmolVlmProcessor(dir, config)
  const checkpoint = await openCheckpoint(dir)
  try {
    checkTensors(expectedWeights(config), checkpoint, storedNames(smolVlm, checkpoint))
  } finally {
    await checkpoint.close()
  }
  return { config, processor, weights: expectedWeights(config) }
}

/** Throws MemoryError when the model of a run does not fit beside what else this machine holds. */
export async function checkRunFits(config: Config, free?: number): Promise<void> {
  const plan = await planRun(config)
  if (plan === null) return
  const { estimate, others } = plan
  checkFits(config.model.dir, estimate, free ?? (await availableMemory()), others)
}

/** As `checkRunFits` for a model that only answers, a few samples at a time. */
export async function checkModelFits(dir: string, free?: number): Promise<void> {
  const sizes = await readSizes(dir)
  if (sizes === null) return
  const lengths = { prompts: 1, samples: 8, promptTokens: 128, newTokens: 64 }
  const work = { ...pictureSizes(sizes), ...lengths, pictures: 64, images: 8, parts: 0, reference: false, run: false }
  const estimate = estimateMemory(weightCounts(sizes, { kind: 'none' }), sizes.config, work, LIMITS)
  checkFits(dir, estimate, free ?? (await availableMemory()), [])
}

/** What a run needs, and what it would need under settings that save memory; null where nobody knows. */
export async function planRun(config: Config): Promise<{ estimate: MemoryEstimate; others: Alternative[] } | null> {
  const sizes = await readSizes(config.model.dir)
  if (sizes === null) return null
  const others = alternatives(config).map(({ set, config: other }) => ({ set, estimate: estimateRun(sizes, other) }))
  return { estimate: estimateRun(sizes, config), others }
}

function alternatives(config: Config): { set: string; config: Config }[] {
  const { model, groups, generation, train } = config
  const half = (n: number) => Math.ceil(n / 2)
  return [
    ...(model.train === 'lora'
      ? []
      : [{ set: 'model.train=lora', config: { ...config, model: { ...model, train: 'lora' as const } } }]),
    {
      set: `groups.answers=${Math.max(2, half(groups.answers))}`,
      config: { ...config, groups: { ...groups, answers: Math.max(2, half(groups.answers)) } },
    },
    {
      set: `groups.images=${half(groups.images)}`,
      config: { ...config, groups: { ...groups, images: half(groups.images) } },
    },
    {
      set: `train.microBatchImages=${2 * train.microBatchImages}`,
      config: { ...config, train: { ...train, microBatchImages: 2 * train.microBatchImages } },
    },
    {
      set: `generation.maxQuestionTokens=${half(generation.maxQuestionTokens)}`,
      config: { ...config, generation: { ...generation, maxQuestionTokens: half(generation.maxQuestionTokens) } },
    },
    ...(model.rollouts === 'fp32'
      ? []
      : [{ set: 'model.rollouts=fp32', config: { ...config, model: { ...model, rollouts: 'fp32' as const } } }]),
    { set: 'loss.beta=0', config: { ...config, loss: { ...config.loss, beta: 0 } } },
  ]
}

function estimateRun(sizes: Sizes, config: Config): MemoryEstimate {
  return estimateMemory(
    weightCounts(sizes, trainMode(config.model, config.seed)),
    sizes.config,
    runWorkload(sizes, config),
    LIMITS,
  )
}

const VISION = /^model\.(vision_model|connector)\./

/** Numbers of weights by the session that holds them. */
export function weightCounts({ config, weights }: Sizes, mode: TrainMode): WeightCounts {
  const pattern = mode.kind === 'full' ? (mode.part === 'vision' ? VISION : /(?:)/) : null
  const count = (of: RegExp): Part => {
    const mine = weights.filter(({ name }) => of.test(name))
    const sum = (list: readonly ExpectedWeight[]) => list.reduce((n, { dims }) => n + sizeOf(dims), 0)
    const trained = mine.filter(({ name }) => pattern?.test(name))
    return { trained: sum(trained), frozen: sum(mine) - sum(trained) }
  }
  return {
    vision: count(VISION),
    text: count(/^model\.text_model\.(?!embed_tokens)/),
    embedding: count(/^model\.text_model\.embed_tokens/),
    head: count(/^lm_head/),
    tied: config.text.tied,
    adapter: mode.kind === 'lora' ? adapterCount(weights, mode) : 0,
  }
}

function adapterCount(weights: readonly ExpectedWeight[], { r, targets }: { r: number; targets: string }): number {
  const pattern = new RegExp(targets)
  return weights
    .filter(({ name }) => name.startsWith('model.text_model.'))
    .filter(({ name, dims }) => dims.length === 2 && name.endsWith('.weight') && pattern.test(name.slice(0, -7)))
    .reduce((n, { dims }) => n + r * (dims[0]! + dims[1]!), 0)
}

/** A square picture, as large as the processor makes pictures. */
export function pictureSizes({ processor }: Sizes): Pick<Workload, 'tiles' | 'tile' | 'imageTokens'> {
  const { settings, imageSeqLen } = processor
  const tiles = settings.size === null ? 1 : mostTiles({ width: maxSide, height: maxSide }, settings)
  return { tiles, tile: settings.tile, imageTokens: tiles * imageSeqLen }
}

/** One step: the question of each picture, then answers to each question. */
function runWorkload(
  sizes: Sizes,
  { model, groups, generation, prompts, train, loss, images, world }: Config,
): Workload {
  const suffix = (text: string) => sizes.processor.prompts.splitPrompt(text, null).suffix.length
  const { questions, answers } = groups
  const tokens = questions * generation.maxQuestionTokens + questions * answers * generation.maxAnswerTokens
  return {
    ...pictureSizes(sizes),
    pictures: images.limit ?? (images.dir === null ? world.images : 10_000),
    images: groups.images,
    prompts: 1 + questions,
    samples: answers,
    promptTokens: Math.max(suffix(prompts.questioner), suffix(prompts.reasoner)),
    newTokens: Math.ceil(tokens / ((1 + questions) * answers)),
    parts: Math.ceil(groups.images / train.microBatchImages),
    reference: loss.beta !== 0,
    run: true,
    roundedBytes: ROUNDED_BYTES[model.rollouts],
  }
}

/** As measured: onnxruntime keeps rounded weights as they are and packed. */
const ROUNDED_BYTES: Readonly<Record<Config['model']['rollouts'], number>> = { fp32: 0, int8: 2, q4: 1.6, auto: 2 }
