/** The measurements of `visplay bench`, one row each. */
import type { Precision } from '../../models/layers/precision.ts'
import { lossMetrics } from '../../models/losses/metrics.ts'
import type { Model } from '../../models/model.ts'
import { initAdamW, stepAdamW } from '../../models/optim/adamw.ts'
import { clipScale, globalNorm } from '../../models/optim/clip.ts'
import type { GrpoConfig } from '../../models/losses/grpo-config.ts'
import { loadModel } from '../../models/vlm/load.ts'
import type { TrainMode } from '../../models/vlm/load-options.ts'
import type { Architecture, Picture } from '../../models/vlm/family.ts'
import { familyOf } from '../../models/vlm/registry.ts'
import { measureBandwidth } from './bandwidth.ts'
import {
  decodedBytes,
  type Passes,
  flops,
  flopsPerUnit,
  FORWARD,
  FULL_UPDATE,
  keyBytes,
  LORA_UPDATE,
  type Work,
} from './flops.ts'
import { measureGemm } from './gemm.ts'
import { digits, median, timed, withPeakMemory } from './measure.ts'
import {
  noisePicture,
  noisePictures,
  policyGroups,
  rollout,
  type Rollout,
  rowTokens,
  sampledTokens,
  type Workload,
} from './workload.ts'

/** What is measured: a checkpoint folder, how it is trained, and a workload. */
export interface Subject {
  readonly name: string
  readonly dir: string
  /** Pixels a side of the pictures. */
  readonly pixels: number
  readonly train: 'lora' | 'full'
  readonly workloadName: string
  readonly workload: Workload
}

export interface BenchOptions {
  readonly threads: number
  /** Precision of rollouts where the text model is frozen; an update then corrects for it. */
  readonly rollouts: Precision
  /** Runs of which the median counts, after one that warms up. */
  readonly repeats: number
  readonly signal: AbortSignal
  readonly onNote: (line: string) => void
}

export type BenchRow = Readonly<Record<string, string | number | boolean>>

const LOSS: GrpoConfig = {
  loss_type: 'dapo',
  epsilon: 0.2,
  epsilon_high: null,
  delta: null,
  beta: 0,
  sampler_cap: null,
}
/** Of samples from rounded weights. */
const CORRECTED: GrpoConfig = { ...LOSS, sampler_cap: 2 }
const ADAMW = { lr: 1e-5, betas: [0.9, 0.95], eps: 1e-8, weightDecay: 0 } as const
/** TRL's example configuration: every linear layer of the text model. */
const LORA = { kind: 'lora', r: 16, alpha: 32, seed: 0 } as const
const LORA_TARGETS = String.raw`\.layers\.\d+\.(self_attn|mlp)\.\w+_proj$`

/** Rates of the machine that shares refer to. */
export interface Bounds {
  /** 10⁹ operations of float32 matrix products for a second of one core. */
  readonly gflopsPerCore: number
  /** 10⁹ bytes of memory a second. */
  readonly gbPerSecond: number
}

/** Rates of float32 matrix products; the best one for a second of one core is the bound that shares refer to. */
export async function benchGemm(options: BenchOptions): Promise<BenchRow> {
  const rates = []
  for (const dims of [
    [1024, 2048, 2048],
    [2048, 576, 1536],
  ] as const) {
    options.onNote(`matrix product ${dims.join('×')}`)
    rates.push(await measureGemm(dims, { threads: options.threads, repeats: 2 * options.repeats + 1 }))
  }
  return {
    row: 'gemm',
    ...Object.fromEntries(rates.map((r) => [r.dims.join('x'), digits(r.gflops)])),
    gflops: digits(Math.max(...rates.map((r) => r.gflops))),
    gflopsPerCore: digits(Math.max(...rates.map((r) => r.gflopsPerCore))),
  }
}

/** Rates of memory: of a product of one row, and of copies in several threads (bytes read and written). */
export async function benchBandwidth(options: BenchOptions): Promise<BenchRow> {
  options.onNote('memory bandwidth')
  const { product, copy } = await measureBandwidth({ threads: options.threads, repeats: 2 * options.repeats + 1 })
  return {
    row: 'bandwidth',
    product: digits(product),
    copy: digits(copy),
    gbPerSecond: digits(Math.max(product, copy)),
  }
}

/** Rows of one subject: sessions, rollouts, update, step with and without the tree. */
export async function* benchSubject(subject: Subject, bounds: Bounds, options: BenchOptions): AsyncGenerator<BenchRow> {
  const train: TrainMode = subject.train === 'full' ? { kind: 'full' } : { ...LORA, targets: LORA_TARGETS }
  // Weights that change cannot be rounded once.
  const rollouts = subject.train === 'full' ? 'fp32' : options.rollouts
  const loaded = await timed(() => loadModel(subject.dir, { train, threads: options.threads, rollouts }))
  const bench = await SubjectBench.open(subject, loaded.value, bounds, { ...options, rollouts })
  try {
    yield* bench.rows(loaded.seconds)
  } finally {
    await loaded.value.dispose()
  }
}

interface Step {
  readonly rollouts: readonly Rollout[]
  readonly trainedTokens: number
  readonly rolloutSeconds: number
  readonly updateSeconds: number
  readonly optimizerSeconds: number
  readonly rolloutCoreSeconds: number
  readonly updateCoreSeconds: number
  /** TRL's names: how far the sampler was from the policy. */
  readonly metrics: Readonly<Record<string, number>>
}

class SubjectBench {
  readonly #unit: ReturnType<typeof flopsPerUnit>
  #adam
  #seed = 0

  private constructor(
    private readonly subject: Subject,
    private readonly model: Model,
    private readonly bounds: Bounds,
    private readonly options: BenchOptions,
    private readonly architecture: Architecture,
    picture: Picture,
  ) {
    this.#unit = flopsPerUnit(architecture, picture)
    this.#adam = initAdamW(model.trainable())
  }

  static async open(subject: Subject, model: Model, bounds: Bounds, options: BenchOptions): Promise<SubjectBench> {
    const { architecture, processor } = await (await familyOf(subject.dir)).open(subject.dir)
    const picture = await noisePicture(processor, subject.pixels)
    return new SubjectBench(subject, model, bounds, options, architecture, picture)
  }

  async *rows(loadSeconds: number): AsyncGenerator<BenchRow> {
    const cold = await this.#memory('first step (compiles)', () => this.#step('cold', true))
    const steps = await this.#repeat('steps with the tree', () => this.#step('warm', true))
    const first = cold.value
    yield this.#row('sessions', {
      loadSeconds: digits(loadSeconds),
      firstRolloutSeconds: digits(first.rolloutSeconds),
      firstUpdateSeconds: digits(first.updateSeconds),
      compileSeconds: digits(Math.max(0, total(first) - median(steps.value.map(total)))),
      peakMb: cold.peakMb,
    })
    yield await this.#rolloutRow()
    yield this.#stepRow(true, steps.value, Math.max(cold.peakMb, steps.peakMb))
    yield await this.#rowsAlone()
  }

  /** Rollouts alone: with pictures seen for the first time, and with cached image features. */
  async #rolloutRow(): Promise<BenchRow> {
    const once = (name: string, most?: number) =>
      timed(() => this.#rollout(name, { tree: true, ...(most !== undefined && { most }) }))
    const cached = await this.#repeat('rollouts, pictures known', () => once('warm'))
    const short = await this.#repeat('rollouts of one token', () => once('warm', 1))
    let fresh = 0
    const unseen = await this.#repeat('rollouts, pictures new', () => once(`fresh${fresh++}`))
    const seconds = (runs: readonly { seconds: number }[]) => median(runs.map((r) => r.seconds))
    const coreSeconds = median(cached.value.map((r) => r.coreSeconds))
    const tokens = sampledTokens(cached.value[0]!.value)
    const samples = sampledTokens(short.value[0]!.value)
    const work = { ...workOf(cached.value[0]!.value), pictures: 0 }
    const decodeSeconds = seconds(cached.value) - seconds(short.value)
    return this.#row('rollout', {
      newTokens: tokens,
      seconds: digits(seconds(unseen.value)),
      secondsPicturesKnown: digits(seconds(cached.value)),
      tokensPerSecond: digits(tokens / seconds(unseen.value)),
      tokensPerSecondPicturesKnown: digits(tokens / seconds(cached.value)),
      decodeTokensPerSecond: digits((tokens - samples) / decodeSeconds),
      coreSecondsPicturesKnown: digits(coreSeconds),
      prefillSeconds: digits(seconds(short.value)),
      visionSecondsPerPicture: digits((seconds(unseen.value) - seconds(cached.value)) / this.subject.workload.images),
      gemmShare: this.#share(work, FORWARD, coreSeconds),
      ...this.#decodeShare(cached.value[0]!.value, decodeSeconds),
      peakMb: Math.max(cached.peakMb, unseen.peakMb),
    })
  }

  /** Every completion as a row of its own, as libraries without a tree compute it; image features are given. */
  async #rowsAlone(): Promise<BenchRow> {
    this.options.onNote('image features of every row')
    await this.#rollout('warm', { tree: false, most: 1 })
    const alone = await this.#memory('a step without the tree', () => this.#step('warm', false))
    return this.#stepRow(false, [alone.value], alone.peakMb)
  }

  #stepRow(tree: boolean, steps: readonly Step[], peakMb: number): BenchRow {
    const of = (key: Exclude<keyof Step, 'rollouts' | 'trainedTokens' | 'metrics'>) => median(steps.map((s) => s[key]))
    const last = steps.at(-1)!
    const full = this.subject.train === 'full'
    const work = {
      ...workOf(last.rollouts),
      tokens: last.trainedTokens,
      pictures: full ? this.subject.workload.images : 0,
    }
    const rows = rowTokens(last.rollouts)
    return this.#row('step', {
      tree,
      seconds: digits(median(steps.map(total))),
      rolloutSeconds: digits(of('rolloutSeconds')),
      updateSeconds: digits(of('updateSeconds')),
      optimizerSeconds: digits(of('optimizerSeconds')),
      rolloutCoreSeconds: digits(of('rolloutCoreSeconds')),
      updateCoreSeconds: digits(of('updateCoreSeconds')),
      newTokens: sampledTokens(last.rollouts),
      distinctCompletions: last.rollouts.reduce((n, r) => n + distinctOf(r), 0),
      completions: last.rollouts.reduce((n, r) => n + r.generated.samples.length, 0),
      trainedTokens: last.trainedTokens,
      rowTokens: rows,
      updateTokensPerSecond: digits(last.trainedTokens / of('updateSeconds')),
      updateRowTokensPerSecond: digits(rows / of('updateSeconds')),
      gemmShare: this.#share(work, full ? FULL_UPDATE : LORA_UPDATE, of('updateCoreSeconds')),
      ...mismatch(last.metrics),
      // Forward and backward read the weights at least once each.
      bandwidthShare: digits(
        (2 * decodedBytes(this.architecture)) / 1e9 / of('updateSeconds') / this.bounds.gbPerSecond,
      ),
      peakMb,
    })
  }

  async #step(pictures: string, tree: boolean): Promise<Step> {
    const sampled = await timed(() => this.#rollout(pictures, { tree }))
    const rollouts = sampled.value
    const groups = policyGroups(rollouts, this.#seed)
    const loss = this.options.rollouts === 'fp32' ? LOSS : CORRECTED
    const updated = await timed(() => this.model.policyGradient(groups, loss))
    const gradient = updated.value
    const { seconds: optimizerSeconds } = await timed(async () => {
      const gradientScale = clipScale(globalNorm(gradient.gradients), 1)
      const next = stepAdamW(this.#adam, this.model.trainable(), gradient.gradients, { ...ADAMW, gradientScale })
      this.#adam = next.state
      this.model.load(next.weights)
    })
    return {
      rollouts,
      trainedTokens: gradient.tokens,
      rolloutSeconds: sampled.seconds,
      updateSeconds: updated.seconds,
      optimizerSeconds,
      rolloutCoreSeconds: sampled.coreSeconds,
      updateCoreSeconds: updated.coreSeconds,
      metrics: lossMetrics(gradient.metrics),
    }
  }

  #rollout(name: string, how: { readonly tree: boolean; readonly most?: number }): Promise<Rollout[]> {
    this.options.signal.throwIfAborted()
    const pictures = noisePictures(this.subject.workload.images, this.subject.pixels, name)
    return rollout(this.model, this.subject.workload, pictures, { ...how, seed: ++this.#seed })
  }

  #repeat<T>(what: string, job: () => Promise<T>): Promise<{ value: T[]; peakMb: number }> {
    return this.#memory(what, async () => {
      const results: T[] = []
      for (let i = 0; i < this.options.repeats; i++) results.push(await job())
      return results
    })
  }

  #memory<T>(what: string, job: () => Promise<T>): Promise<{ value: T; peakMb: number }> {
    this.options.onNote(`${this.subject.name} ${this.subject.workloadName}: ${what}`)
    return withPeakMemory(job)
  }

  /** Of what plain matrix products do in the same processor time. */
  #share(work: Work, passes: Passes, coreSeconds: number): number {
    return digits(flops(this.#unit, work, passes) / 1e9 / coreSeconds / this.bounds.gflopsPerCore)
  }

  /**
   * Of the bound of decoding, where all samples are decoded side by side: each step reads every weight and the keys of
   * every token once.
   */
  #decodeShare(rollouts: readonly Rollout[], seconds: number): BenchRow {
    if (this.subject.workload.questions) return {}
    const steps = this.subject.workload.answers.tokens - 1
    const prompts = rollouts.reduce((n, { generated }) => n + generated.promptTokens, 0)
    const samples = rollouts.reduce((n, { generated }) => n + generated.samples.length, 0)
    // Step t reads the prompts and the t tokens of each sample before it.
    const keys = steps * prompts + (samples * steps * (steps + 1)) / 2
    const weights = decodedBytes(this.architecture, this.options.rollouts)
    const bytes = steps * weights + keys * keyBytes(this.architecture)
    return { decodeBandwidthShare: digits(bytes / 1e9 / seconds / this.bounds.gbPerSecond) }
  }

  #row(row: string, values: BenchRow): BenchRow {
    const { name, workloadName, train } = this.subject
    const { rollouts } = this.options
    return { row, model: name, pixels: this.subject.pixels, train, rollouts, workload: workloadName, ...values }
  }
}

/** In nats, of the tokens of a step. */
const mismatch = (metrics: Step['metrics']): BenchRow =>
  Object.fromEntries(
    (['mean', 'max'] as const).flatMap((of) => {
      const value = metrics[`sampling/sampling_logp_difference/${of}`]
      return value === undefined ? [] : [[`logprobDifference/${of}`, digits(value)]]
    }),
  )

const total = (step: Step): number => step.rolloutSeconds + step.updateSeconds + step.optimizerSeconds

const distinctOf = ({ generated }: Rollout): number => new Set(generated.samples.map((s) => s.tokens.join())).size

/** Tokens that sampling computes: each prompt once, each distinct beginning of its completions once. */
function workOf(rollouts: readonly Rollout[]): Pick<Work, 'tokens' | 'predicted'> {
  let [tokens, predicted] = [0, 0]
  for (const { generated } of rollouts) {
    const beginnings = new Set(generated.samples.flatMap((s) => s.tokens.map((_, t) => s.tokens.slice(0, t).join())))
    tokens += generated.promptTokens + beginnings.size - 1
    predicted += beginnings.size
  }
  return { tokens, predicted }
}
