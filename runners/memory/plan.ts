/** The memory of a run from its configuration and the headers of its checkpoint: no weight is read. */
import type { Config } from '../../configs/schema.ts'
import { itemSize } from '../../models/io/safetensors-header.ts'
import { openCheckpoint } from '../../models/io/safetensors.ts'
import type { ExpectedWeight } from '../../models/layers/weights.ts'
import { availableMemory } from '../../models/memory/available.ts'
import {
  estimateMemory,
  type LayerSizes,
  type Limits,
  type MemoryEstimate,
  type Part,
  type PictureSizes,
  type WeightCounts,
  type Workload,
} from '../../models/memory/estimate.ts'
import { type Alternative, checkFits } from '../../models/memory/refusal.ts'
import { sizeOf } from '../../models/tensor.ts'
import type { OpenedFamily } from '../../models/vlm/family.ts'
import type { TrainMode } from '../../models/vlm/load-options.ts'
import { familyOf } from '../../models/vlm/registry.ts'
import { checkTensors, storedNames } from '../../models/vlm/stored-weights.ts'
import { type Holdings, holdingsFor } from '../../models/vlm/weight-holding.ts'
import { trainMode } from '../evolve/train-mode.ts'

/** As models/vlm/model.ts bounds its work. */
const LIMITS: Limits = {
  activationBytes: 256 * 2 ** 20,
  leastTrainTokens: 512,
  generateTokens: 16_384,
  keysBytes: 512 * 2 ** 20,
  cacheBytes: 512 * 2 ** 20,
}
/** The picture that is reckoned with: families that bring pictures to a size of their own make the same of all. */
const PICTURE = { width: 1024, height: 1024 }

/** A checkpoint, checked against its headers. */
export interface Sizes extends OpenedFamily {
  /** Bytes of a weight in the files, in the mean. */
  readonly storedBytes: number
}

/** Throws CheckpointError as loading would. */
export async function readSizes(dir: string): Promise<Sizes> {
  const family = await familyOf(dir)
  const opened = await family.open(dir)
  const { weights } = opened.architecture
  const checkpoint = await openCheckpoint(dir)
  try {
    const names = storedNames(family, checkpoint)
    checkTensors(weights, checkpoint, names)
    const bytes = weights.reduce((n, { name, dims }) => {
      return n + sizeOf(dims) * itemSize[checkpoint.info(names.get(name)!).dtype]
    }, 0)
    return { ...opened, storedBytes: bytes / numberOf(weights) }
  } finally {
    await checkpoint.close()
  }
}

const numberOf = (weights: readonly ExpectedWeight[]): number => weights.reduce((n, { dims }) => n + sizeOf(dims), 0)

/** Throws MemoryError when the model of a run does not fit beside what else this machine holds. */
export async function checkRunFits(config: Config, free?: number): Promise<void> {
  if (!config.model.checkMemory) return
  const { estimate, others } = await planRun(config)
  checkFits(config.model.dir, estimate, free ?? (await availableMemory()), others, OVERRULE_RUN)
}

export const OVERRULE_RUN = '--set model.checkMemory=false'
export const OVERRULE_COMMAND = '--no-check-memory'

/** As `checkRunFits` for a model that only answers, a few samples at a time. */
export async function checkModelFits(dir: string, free?: number): Promise<void> {
  const sizes = await readSizes(dir)
  const lengths = { prompts: 1, samples: 8, promptTokens: 128, newTokens: 64 }
  const once = { pictures: 64, images: 8, parts: 0, reference: false, run: false }
  const work = { picture: sizes.pictureSizes(PICTURE), ...lengths, ...once }
  const estimate = estimateWork(sizes, { kind: 'none' }, work, holdingsFor(numberOf(sizes.architecture.weights)))
  checkFits(dir, estimate, free ?? (await availableMemory()), [], OVERRULE_COMMAND)
}

/** What a run needs, and what it would need under settings that save memory. */
export async function planRun(config: Config): Promise<{ estimate: MemoryEstimate; others: Alternative[] }> {
  const sizes = await readSizes(config.model.dir)
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
    { set: 'model.memory=lean', config: { ...config, model: { ...model, memory: 'lean' as const } } },
    { set: 'train.recompute=true', config: { ...config, train: { ...train, recompute: true } } },
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
  const { model, train } = config
  const use = model.device === 'auto' || model.device === 'cpu' ? model.memory : 'fast'
  const holdings = holdingsFor(numberOf(sizes.architecture.weights), use, train.recompute)
  return estimateWork(sizes, trainMode(model, config.seed), runWorkload(sizes, config), holdings)
}

export function estimateWork(sizes: Sizes, mode: TrainMode, work: Workload, holdings: Holdings): MemoryEstimate {
  const layers: LayerSizes = { text: sizes.architecture.text, vision: sizes.visionSizes }
  return estimateMemory(weightCounts(sizes, mode), layers, work, LIMITS, holdings)
}

/** Numbers of weights by the session that holds them. */
export function weightCounts({ architecture, storedBytes }: Sizes, mode: TrainMode): WeightCounts {
  const { weights, visionWeights, text } = architecture
  const pattern = mode.kind === 'full' ? (mode.part === 'vision' ? visionWeights : /(?:)/) : null
  const count = (mine: readonly ExpectedWeight[]): Part => {
    const trained = numberOf(mine.filter(({ name }) => pattern?.test(name)))
    return { trained, frozen: numberOf(mine) - trained }
  }
  const table = `${text.prefix}.embed_tokens.`
  const ofText = (name: string) => name.startsWith(`${text.prefix}.`)
  return {
    vision: count(weights.filter(({ name }) => !ofText(name) && !name.startsWith('lm_head'))),
    text: count(weights.filter(({ name }) => ofText(name) && !name.startsWith(table))),
    embedding: count(weights.filter(({ name }) => name.startsWith(table))),
    head: count(weights.filter(({ name }) => name.startsWith('lm_head'))),
    tied: text.tied,
    adapter:
      mode.kind === 'lora'
        ? adapterCount(
            weights.filter(({ name }) => ofText(name)),
            mode,
          )
        : 0,
    storedBytes,
  }
}

function adapterCount(weights: readonly ExpectedWeight[], { r, targets }: { r: number; targets: string }): number {
  const pattern = new RegExp(targets)
  return weights
    .filter(({ name, dims }) => dims.length === 2 && name.endsWith('.weight') && pattern.test(name.slice(0, -7)))
    .reduce((n, { dims }) => n + r * (dims[0]! + dims[1]!), 0)
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
    picture: sizes.pictureSizes(PICTURE) satisfies PictureSizes,
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
