/**
 * The tiny model from nothing, with the project's own engine: dense patch labels for the vision tower, then captions,
 * then questions in both roles (DESIGN §9 says why in this order). Deterministic by seed.
 */
import { join } from 'node:path'
import { writeSafetensors } from '../../models/io/safetensors.ts'
import { type AdamWState, initAdamW, stepAdamW } from '../../models/optim/adamw.ts'
import { clipScale, globalNorm } from '../../models/optim/clip.ts'
import { learningRate } from '../../models/optim/schedule.ts'
import type { Weights } from '../../models/tensor.ts'
import { packTrees } from '../../models/tree/pack.ts'
import { Network, type UpdateResult } from '../../models/vlm/network.ts'
import { loadSmolVlmConfig, type SmolVlmConfig } from '../../models/vlm/smolvlm/config.ts'
import { smolVlm } from '../../models/vlm/smolvlm/family.ts'
import { tileInput } from '../../models/vlm/tiles.ts'
import { holdingsFor } from '../../models/vlm/weight-holding.ts'
import { makeFolder } from '../make-folder.ts'
import { LABEL_CLASSES, patchLabels } from '../world/captions.ts'
import { Random } from '../world/random.ts'
import { writeTinyCheckpointFiles } from '../world/tiny-checkpoint.ts'
import { captionBatch, cleanPool, type Pool, questionBatch, type TaughtImage } from '../world/training-data.ts'
import { IMAGE_PREFIX, IMAGE_TOKENS } from '../world/vocabulary.ts'
import { denseWeights, DenseTrainer } from './dense.ts'
import { initialWeights } from './init.ts'
import { pixelsOf } from './pixels.ts'
import { makeProbe, type ProbeScore, runProbe } from './probe.ts'

/** One stage of training. `images` per step; the learning rate falls from `lr` to a tenth along a cosine. */
export interface Phase {
  readonly kind: 'vision' | 'captions' | 'questions'
  readonly steps: number
  readonly images: number
  readonly lr: number
  /** Share of answers replaced by a random one of the same category (questions only). */
  readonly answerNoise?: number
}

export interface PretrainOptions {
  readonly out: string
  readonly seed: number
  readonly threads: number
  /** Labelled pictures in the pool. */
  readonly pool: number
  readonly phases: readonly Phase[]
  /** Folder of a checkpoint to go on from; null = random weights. */
  readonly from: string | null
  /** Steps between reports. */
  readonly reportEvery: number
  readonly signal: AbortSignal
}

export interface PretrainReport {
  readonly event: 'progress' | 'done'
  readonly phase: string
  readonly step: number
  readonly of: number
  readonly loss: number
  readonly seconds: number
  readonly clean?: ProbeScore
  readonly shifted?: ProbeScore
}

const ADAM = { betas: [0.9, 0.98] as const, eps: 1e-8, weightDecay: 0.02 }
const CLIP = 1
const WARMUP = 50
const CAPTIONS_PER_IMAGE = 4
const QUESTIONS = { answers: 8, asks: 2, absentShare: { answers: 0.12, asks: 0.03 }, askWeight: 0.3 }
const PROBE_IMAGES = 120
const PROBE_SEED = 77

/** Trains and writes a checkpoint folder in the Hugging Face layout; reports along the way. */
export async function* pretrain(options: PretrainOptions): AsyncGenerator<PretrainReport> {
  await makeFolder(options.out)
  await writeTinyCheckpointFiles(options.out)
  const trainer = await Trainer.create(options)
  const started = performance.now()
  const probes = {
    clean: await makeProbe('clean', PROBE_IMAGES, PROBE_SEED),
    shifted: await makeProbe('shifted', PROBE_IMAGES, PROBE_SEED),
  }
  let last: PretrainReport | null = null
  for (const [index, phase] of options.phases.entries()) {
    const random = new Random('pretrain', options.seed, index)
    const step = phase.kind === 'vision' ? await trainer.visionPhase() : trainer.textPhase(phase)
    let sum = 0
    for (let k = 0; k < phase.steps; k++) {
      options.signal.throwIfAborted()
      const lr = learningRate(
        { kind: 'cosine', peak: phase.lr, warmup: Math.min(WARMUP, phase.steps), total: phase.steps * 1.25 },
        k,
      )
      sum += await step.run(random, phase, lr)
      const done = k + 1
      if (done % options.reportEvery !== 0 && done !== phase.steps) continue
      const scores =
        phase.kind === 'questions'
          ? {
              clean: await runProbe(trainer.network, probes.clean),
              shifted: await runProbe(trainer.network, probes.shifted),
            }
          : {}
      const count = done % options.reportEvery || Math.min(options.reportEvery, done)
      last = {
        event: 'progress',
        phase: phase.kind,
        step: done,
        of: phase.steps,
        loss: sum / count,
        seconds: (performance.now() - started) / 1000,
        ...scores,
      }
      sum = 0
      yield last
    }
    await step.finish()
    await writeSafetensors(join(options.out, 'model.safetensors'), trainer.network.weights)
  }
  await trainer.network.dispose()
  if (last) yield { ...last, event: 'done' }
}

interface PhaseStep {
  /** One update; returns the loss. */
  run(random: Random, phase: Phase, lr: number): Promise<number>
  finish(): Promise<void>
}

class Trainer {
  private constructor(
    readonly network: Network,
    private readonly config: SmolVlmConfig,
    private readonly pool: Pool,
    private readonly threads: number,
  ) {}

  static async create({ out, seed, threads, pool, from }: PretrainOptions): Promise<Trainer> {
    const config = await loadSmolVlmConfig(out)
    const { architecture } = await smolVlm.open(out)
    const weights = from === null ? initialWeights(config, seed) : await startingWeights(from)
    const dims = new Map(Object.entries(weights).map(([name, t]) => [name, t.dims]))
    const context = { architecture, frozen: {}, trainable: dims, lora: null, holdings: holdingsFor(0) }
    const network = new Network(context, weights, { device: 'cpu', threads })
    return new Trainer(network, config, await cleanPool(pool, seed), threads)
  }

  /** The vision tower with a head of its own. */
  async visionPhase(): Promise<PhaseStep> {
    const { config } = this
    let weights = denseWeights(this.network.weights, config, LABEL_CLASSES)
    let state = initAdamW(weights)
    const dense = await DenseTrainer.create(config, weights, LABEL_CLASSES, this.threads)
    return {
      run: async (random, phase, lr) => {
        const images = this.#draw(random, phase.images)
        const labels = patchLabels(
          images.map((i) => this.pool.scenes[i]!),
          config.vision.image / config.vision.patch,
        )
        const result = await dense.gradient(weights, pixelsOf(this.pool, images), labels)
        ;({ state, weights } = update(state, weights, result, lr))
        return result.loss
      },
      finish: async () => {
        const tower = Object.entries(weights).filter(([name]) => this.network.weights[name])
        this.network.weights = { ...this.network.weights, ...Object.fromEntries(tower) }
        await dense.release()
      },
    }
  }

  /** Captions (vision tower frozen: gradients of its weights are not applied) or questions (everything learns). */
  textPhase({ kind }: Phase): PhaseStep {
    const trains = (name: string) => kind === 'questions' || !name.startsWith('model.vision_model.')
    const chosen = (all: Weights) => Object.fromEntries(Object.entries(all).filter(([name]) => trains(name)))
    let state = initAdamW(chosen(this.network.weights))
    return {
      run: async (random, phase, lr) => {
        const images = this.#draw(random, phase.images)
        const taught =
          kind === 'captions'
            ? captionBatch(this.pool, images, random, CAPTIONS_PER_IMAGE)
            : questionBatch(this.pool, images, random, { ...QUESTIONS, answerNoise: phase.answerNoise ?? 0 })
        const result = await this.#teach(taught)
        const next = update(state, chosen(this.network.weights), { ...result, gradients: chosen(result.gradients) }, lr)
        state = next.state
        this.network.weights = { ...this.network.weights, ...next.weights }
        return result.loss
      },
      finish: () => Promise.resolve(),
    }
  }

  #draw(random: Random, count: number): number[] {
    return Array.from({ length: count }, () => random.integer(this.pool.scenes.length))
  }

  /** Weighted mean cross-entropy of a batch. */
  #teach(taught: readonly TaughtImage[]): Promise<UpdateResult> {
    const roots = taught.map(({ prompts }, i) => ({
      prefix: IMAGE_PREFIX,
      firstFeature: i * IMAGE_TOKENS,
      prompts: prompts.map((p) => ({ tokens: p.prompt, completions: p.completions.map((c) => c.tokens) })),
    }))
    const tree = packTrees(roots, this.config.imageTokenId)
    const weights = Float32Array.from(
      taught.flatMap((t) => t.prompts.flatMap((p) => p.completions.flatMap((c) => c.weights))),
    )
    const total = weights.reduce((a, b) => a + b, 0)
    const pixels = pixelsOf(
      this.pool,
      taught.map((t) => t.image),
    )
    return this.network.supervisedGradient(
      tree,
      { kind: 'pixels', input: tileInput(pixels) },
      weights.map((w) => w / total),
    )
  }
}

async function startingWeights(from: string): Promise<Weights> {
  const { openModel } = await import('../../models/vlm/open.ts')
  const model = await openModel(from, { train: { kind: 'full' } })
  await model.dispose()
  return model.trainable()
}

function update(state: AdamWState, weights: Weights, { gradients }: UpdateResult, lr: number) {
  const gradientScale = clipScale(globalNorm(gradients), CLIP)
  return stepAdamW(state, weights, gradients, { ...ADAM, lr, gradientScale })
}
