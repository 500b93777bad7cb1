/** Recomputes the loss cases of a goldens folder (`grpo/cases.json`, made with TRL's own code) and compares. */
import { join } from 'node:path'
import { z } from 'zod'
import { grad } from '../graph/autodiff.ts'
import { Graph, type Value } from '../graph/graph.ts'
import { ones } from '../graph/ops.ts'
import { readJson } from '../io/json-file.ts'
import { readSafetensors } from '../io/safetensors.ts'
import { Session, type SessionOptions } from '../runtime/session.ts'
import { f32, type HostTensor, type TensorMap } from '../tensor.ts'
import { type Advantages, groupAdvantages } from './advantages.ts'
import { grpoLoss, type GrpoInputs } from './grpo.ts'
import { lossMetrics } from './metrics.ts'
import { tokenWeights } from './normalization.ts'
import { samplerCorrection } from './sampler-correction.ts'

/** One compared quantity of one case; `maxError` is Infinity when it is missing or of another shape. */
export interface Verified {
  readonly case: string
  readonly quantity: string
  readonly maxError: number
  readonly tolerance: number
  readonly pass: boolean
  /** Why a quantity could not be computed. */
  readonly message?: string
}

/** float32 rounding of values around 1. */
const TOLERANCE = 1e-6

/** TRL's settings of a loss, all of them written out. */
export const trlConfigSchema = z.strictObject({
  loss_type: z.enum(['grpo', 'bnpo', 'dr_grpo', 'dapo', 'cispo', 'luspo', 'sapo']),
  importance_sampling_level: z.enum(['token', 'sequence']),
  epsilon: z.number(),
  epsilon_high: z.number().nullable(),
  delta: z.number().nullable(),
  beta: z.number(),
  use_bias_correction_kl: z.boolean(),
  max_completion_length: z.number().int(),
  gradient_accumulation_steps: z.number().int(),
  steps_per_generation: z.number().int(),
  off_policy_mask_threshold: z.number().nullable(),
  top_entropy_quantile: z.number(),
  sapo_temperature_neg: z.number(),
  sapo_temperature_pos: z.number(),
  scale_rewards: z.enum(['group', 'batch', 'none']),
  multi_objective_aggregation: z.enum(['sum_then_normalize', 'normalize_then_sum']),
  sampler_correction: z.enum(['token_truncate', 'token_mask', 'sequence_truncate', 'sequence_mask']).nullable(),
  sampler_cap: z.number().nullable(),
  sampler_floor: z.number().nullable(),
})
const caseSchema = z.strictObject({
  about: z.string(),
  config: trlConfigSchema,
  num_generations: z.number().int().min(1),
  shape: z.tuple([z.number().int(), z.number().int()]),
  loss: z.number(),
  loss_float64: z.number(),
  /** null = NaN. */
  metrics: z.record(z.string(), z.number().nullable()),
})
type Case = z.infer<typeof caseSchema>

/**
 * Compares loss, advantages, gradient, sampler ratio and every metric of each case in `dir` (which holds `cases.json`
 * and one safetensors file per case).
 *
 * @throws CheckpointError when a file is missing or malformed.
 */
export async function* verifyGrpo(dir: string, options: SessionOptions = {}): AsyncGenerator<Verified> {
  const cases = await readJson(join(dir, 'cases.json'), z.record(z.string(), caseSchema))
  for (const [name, golden] of Object.entries(cases)) {
    const tensors = await readSafetensors(join(dir, `${name}.safetensors`))
    yield* compare(name, await recompute(golden, tensors, options), expected(golden, tensors))
  }
}

type Quantities = Readonly<Record<string, ArrayLike<number>>>

/** The golden's side. Logprobs that TRL was not given are absent from the file as well. */
function expected(golden: Case, tensors: TensorMap): Quantities {
  const metrics = Object.entries(golden.metrics).map(([name, value]) => [`metrics/${name}`, [value ?? NaN]])
  return {
    loss: [golden.loss],
    loss_float64: [golden.loss_float64],
    advantages: numbers(tensors, 'advantages'),
    grad_logps: numbers(tensors, 'grad_logps'),
    ...(tensors.sampler_ratio ? { sampler_ratio: numbers(tensors, 'sampler_ratio') } : {}),
    ...(Object.fromEntries(metrics) as Quantities),
  }
}

async function recompute(golden: Case, tensors: TensorMap, options: SessionOptions): Promise<Quantities> {
  const [rows, width] = golden.shape
  const mask = numbers(tensors, 'mask')
  const lengths_B = Array.from({ length: rows }, (_, b) => sum(mask.slice(b * width, (b + 1) * width)))
  const reward = rewards(golden, tensors)
  const advantages = reward.advantages_P_G.flat()
  const feeds: Record<string, HostTensor> = {
    mask: f32(mask, [rows, width]),
    advantages: f32(advantages, [rows]),
    weights: f32(
      tokenWeights(golden.config.loss_type, lengths_B, {
        maxCompletionLength: golden.config.max_completion_length,
        accumulationSteps: golden.config.gradient_accumulation_steps,
        stepsPerGeneration: golden.config.steps_per_generation,
      }),
      [rows],
    ),
  }
  for (const name of LOGPS) if (tensors[name]) feeds[name] = f32(numbers(tensors, name), [rows, width])
  const { loss, grad_logps, sampler_ratio, ...sums } = await runLoss(golden, feeds, options)
  const metrics = { ...reward.metrics, ...lossMetrics(mapValues(sums, (values) => values[0]!)) }
  return {
    loss: loss!,
    loss_float64: loss!,
    advantages,
    grad_logps: grad_logps!,
    ...(sampler_ratio ? { sampler_ratio } : {}),
    ...Object.fromEntries(Object.entries(metrics).map(([name, value]) => [`metrics/${name}`, [value]])),
  }
}

function rewards(golden: Case, tensors: TensorMap): Advantages {
  const weights = numbers(tensors, 'reward_weights')
  const flat = numbers(tensors, 'rewards')
  const size = golden.num_generations
  const row = (b: number) => flat.slice(b * weights.length, (b + 1) * weights.length)
  const groups = Array.from({ length: golden.shape[0] / size }, (_, p) =>
    Array.from({ length: size }, (_, g) => row(p * size + g)),
  )
  const functions = weights.map((weight, i) => ({ name: `reward_${i}`, weight }))
  return groupAdvantages(groups, functions, golden.config)
}

const LOGPS = ['logps', 'old_logps', 'ref_logps', 'sampler_logps', 'entropies'] as const

/** Builds the loss with symbolic sizes, as training does, and runs it together with its gradient. */
async function runLoss(golden: Case, feeds: TensorMap, options: SessionOptions): Promise<Record<string, number[]>> {
  const graph = new Graph()
  const inputs: Record<string, Value> = {}
  for (const [name, { dims }] of Object.entries(feeds)) {
    inputs[name] = graph.input(name, 'float32', dims.length === 2 ? ['B', 'T'] : ['B'])
  }
  const { logps, old_logps, ref_logps, sampler_logps, entropies, mask, advantages, weights } = inputs
  if (!logps || !mask || !advantages || !weights) throw new RangeError('the case has no logps')
  const given: GrpoInputs = {
    logps,
    mask,
    advantages,
    weights,
    ...(old_logps && { oldLogps: old_logps }),
    ...(ref_logps && { refLogps: ref_logps }),
    ...(sampler_logps && { samplerLogps: sampler_logps }),
    ...(entropies && { entropies }),
  }
  const { loss, metrics } = grpoLoss(given, golden.config)
  const outputs: Record<string, Value> = { ...metrics, loss, grad_logps: grad(loss, [logps])[0]! }
  if (golden.config.sampler_correction !== null && old_logps && sampler_logps) {
    const counts = ones(graph, ['B', 1])
    const correction = { oldLogps: old_logps, samplerLogps: sampler_logps, mask, counts }
    outputs.sampler_ratio = samplerCorrection(correction, golden.config).ratio
  }
  const session = await Session.create(graph, outputs, { ...options, threads: 1 })
  try {
    return mapValues(await session.run(feeds), (tensor) => Array.from(tensor.data, Number))
  } finally {
    await session.release()
  }
}

/** Every quantity that either side has; one that only one side has fails. */
function* compare(name: string, actual: Quantities, golden: Quantities): Generator<Verified> {
  for (const quantity of new Set([...Object.keys(golden), ...Object.keys(actual)])) {
    const maxError = largestError(actual[quantity], golden[quantity])
    yield { case: name, quantity, maxError, tolerance: TOLERANCE, pass: maxError <= TOLERANCE }
  }
}

function largestError(a: ArrayLike<number> | undefined, b: ArrayLike<number> | undefined): number {
  if (!a || !b || a.length !== b.length) return Infinity
  let largest = 0
  for (let i = 0; i < a.length; i++) {
    const [x, y] = [a[i]!, b[i]!]
    const bothUndefined = Number.isNaN(x) && Number.isNaN(y)
    const error = bothUndefined ? 0 : Math.abs(x - y)
    largest = Math.max(largest, Number.isNaN(error) ? Infinity : error)
  }
  return largest
}

function numbers(tensors: TensorMap, name: string): number[] {
  const tensor = tensors[name]
  if (!tensor) throw new RangeError(`the case has no tensor ${name}`)
  return Array.from(tensor.data, Number)
}

function sum(values: readonly number[]): number {
  return values.reduce((a, b) => a + b, 0)
}

function mapValues<A, B>(record: Readonly<Record<string, A>>, f: (value: A) => B): Record<string, B> {
  return Object.fromEntries(Object.entries(record).map(([key, value]) => [key, f(value)]))
}
