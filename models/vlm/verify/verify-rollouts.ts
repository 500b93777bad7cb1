/** GRPO on the adapter: scores, advantages, loss, gradients of A and B, and AdamW steps. */
import { join } from 'node:path'
import { readJson } from '../../io/json-file.ts'
import { readSafetensors } from '../../io/safetensors.ts'
import { groupAdvantages } from '../../losses/advantages.ts'
import { lossMetrics } from '../../losses/metrics.ts'
import { tokenWeights } from '../../losses/normalization.ts'
import type { Verified } from '../../losses/verify-grpo.ts'
import { initAdamW, stepAdamW } from '../../optim/adamw.ts'
import { clipScale, globalNorm } from '../../optim/clip.ts'
import type { Weights } from '../../tensor.ts'
import { type PackedTree, packTrees } from '../../tree/pack.ts'
import type { ImageInput, PolicyRow, UpdateResult } from '../network.ts'
import type { AdaptedVariant } from './adapter.ts'
import { type Checks, checksOf, largestDifference, TOLERANCE } from './checks.ts'
import { type GoldenGrpo, type GoldenMetrics, grpoSchema, GoldenTensors } from './golden-files.ts'
import { compareGradients } from './gradients.ts'
import { padLeft, paddedPositions, padRight } from './padding.ts'
import { featuresOf, positionsOf, type PreparedCase, prepareCase, rootsOf, type Variant } from './variant.ts'

/** The cases whose prompts are completed, each `num_generations` times. */
const PROMPTS = ['single', 'interleaved']

interface Rollouts {
  readonly golden: GoldenGrpo
  readonly batch: GoldenTensors
  readonly prompts: readonly PreparedCase[]
  /** Token ids of the completions, in the order of the rows. */
  readonly completions: readonly (readonly number[])[]
  readonly tree: PackedTree
  readonly image: ImageInput
}

export async function* verifyRollouts(
  variant: Variant,
  adapted: AdaptedVariant,
  batch: GoldenTensors,
): AsyncGenerator<Verified> {
  const check = checksOf('train/grpo')
  const rollouts = await prepare(variant, batch)
  yield* compareRows(check, variant, rollouts)
  yield* compareScores(check, variant, adapted, rollouts)
  const advantages = yield* compareAdvantages(check, rollouts)
  const rows = policyRows(rollouts, advantages)
  yield* compareUpdates(check, variant.dir, adapted, rollouts, rows)
}

async function prepare(variant: Variant, batch: GoldenTensors): Promise<Rollouts> {
  const { architecture, processor } = variant
  const golden = await readJson(join(variant.dir, 'train', 'grpo.json'), grpoSchema)
  const prompts: PreparedCase[] = []
  for (const name of PROMPTS) prompts.push(await prepareCase(variant, name))
  const completions = golden.completions.map((text) => [
    ...processor.tokenizer.encode(text, { addSpecialTokens: false }),
    processor.tokenizer.idOf(processor.tokenizer.eosToken ?? '') ?? NaN,
  ])
  const inputs = prompts.map((p) => p.inputs)
  const size = golden.num_generations
  const own = (i: number) => [{ tokens: [], completions: completions.slice(i * size, (i + 1) * size) }]
  const tree = packTrees(rootsOf(variant, inputs, own), architecture.imageTokenId)
  const features = await featuresOf(
    variant,
    inputs.flatMap((i) => i.pictures),
  )
  const image: ImageInput = features ? { kind: 'given', features } : { kind: 'none' }
  return { golden, batch, prompts, completions, tree, image }
}

function* compareRows(
  check: Checks,
  variant: Variant,
  { golden, batch, prompts, completions }: Rollouts,
): Generator<Verified> {
  const pad = variant.architecture.padTokenId ?? 0
  const owners = completions.map((_, row) => prompts[Math.floor(row / golden.num_generations)]!.inputs)
  const prefixes = owners.map((inputs) => inputs.inputIds)
  const [left, right] = [padLeft(prefixes, pad), padRight(completions, pad)]
  const mask = left.mask.map((row, i) => [...row, ...right.mask[i]!])
  yield check.same('completion_ids', right.ids.flat(), batch.numbers('completion_ids'))
  yield check.same('completion_mask', right.mask.flat(), batch.numbers('completion_mask'))
  yield check.same(
    'input_ids',
    left.ids.flatMap((row, i) => [...row, ...right.ids[i]!]),
    batch.numbers('input_ids'),
  )
  yield check.same('attention_mask', mask.flat(), batch.numbers('attention_mask'))
  const sequences = owners.map((inputs, row) => positionsOf(variant, inputs, completions[row]))
  yield check.same('position_ids', paddedPositions(mask, sequences), batch.numbers('position_ids'))
}

/** Scores with the adapter on and, where the loss has a KL term, off. */
async function* compareScores(
  check: Checks,
  { network }: Variant,
  adapted: AdaptedVariant,
  { golden, batch, tree, image, completions }: Rollouts,
): AsyncGenerator<Verified> {
  const scored = (name: string) => completions.flatMap((c, row) => batch.row(name, row).slice(0, c.length))
  const on = await adapted.network.score(tree, image)
  yield check.close('logps', on.logprobs.flat(), scored('logps'), TOLERANCE.logprobs)
  yield check.close('entropies', on.entropies.flat(), scored('entropies'), TOLERANCE.logprobs)
  yield check.holds('has ref_logps', (golden.config.beta !== 0) === batch.has('ref_logps'))
  if (!batch.has('ref_logps')) return
  const off = await network.score(tree, image)
  yield check.close('ref_logps', off.logprobs.flat(), scored('ref_logps'), TOLERANCE.logprobs)
}

/** Returns the recomputed advantages, one per row. */
function* compareAdvantages(check: Checks, { golden, batch }: Rollouts): Generator<Verified, number[]> {
  const rewards = Array.from(batch.numbers('rewards'))
  const size = golden.num_generations
  const groups = Array.from({ length: rewards.length / size }, (_, p) =>
    rewards.slice(p * size, (p + 1) * size).map((reward) => [reward]),
  )
  const { advantages_P_G, metrics } = groupAdvantages(groups, [{ name: 'reward_0', weight: 1 }], golden.config)
  const advantages = advantages_P_G.flat()
  yield check.close('advantages', advantages, batch.numbers('advantages'), TOLERANCE.advantages)
  yield* compareMetrics(check, 'reward_metrics', metrics, golden.reward_metrics)
  return advantages
}

function policyRows({ golden, batch, completions }: Rollouts, advantages: readonly number[]): PolicyRow[] {
  const { config } = golden
  const weights = tokenWeights(
    config.loss_type,
    completions.map((c) => c.length),
    {
      maxCompletionLength: config.max_completion_length,
      accumulationSteps: config.gradient_accumulation_steps,
      stepsPerGeneration: config.steps_per_generation,
    },
  )
  return completions.map(({ length }, row) => ({
    advantage: advantages[row]!,
    weight: weights[row]!,
    count: 1,
    logprobs: batch.row('old_logps', row).slice(0, length),
    ...(batch.has('ref_logps') && { refLogprobs: batch.row('ref_logps', row).slice(0, length) }),
  }))
}

/** Steps on the same rows with the same old logprobs; the adapter is stored after the first and the third. */
async function* compareUpdates(
  check: Checks,
  dir: string,
  { network, adapter }: AdaptedVariant,
  { golden, tree, image }: Rollouts,
  rows: readonly PolicyRow[],
): AsyncGenerator<Verified> {
  const { optimizer, config } = golden
  let weights: Weights = adapter.weights
  let state = initAdamW(weights)
  for (const [step, loss] of optimizer.loss_per_step.entries()) {
    network.weights = weights
    const own = await network.policyGradient(tree, image, rows, config)
    if (step === 0) yield* compareFirst(check, dir, own, golden)
    const norm = globalNorm(own.gradients)
    const stored = optimizer.grad_norm_before_clip_per_step[step] ?? NaN
    yield check.close(`step ${step + 1}: loss`, [own.loss], [loss], TOLERANCE.loss)
    yield check.close(`step ${step + 1}: gradient norm`, [norm], [stored], TOLERANCE.gradient * stored)
    const metrics = optimizer.metrics_per_step[step] ?? {}
    yield* compareMetrics(check, `step ${step + 1}: metrics`, lossMetrics(own.metrics), metrics)
    const { lr, betas, adam_eps: eps, weight_decay: weightDecay, max_grad_norm: max } = optimizer
    const options = { lr, betas, eps, weightDecay, gradientScale: clipScale(norm, max) }
    const after = stepAdamW(state, weights, own.gradients, options)
    weights = after.weights
    state = after.state
    const file = join(dir, 'train', `adapter_step${step + 1}.safetensors`)
    if (step === 0 || step === 2) yield* compareAdapters(check, step + 1, weights, file, lr)
  }
  network.weights = adapter.weights
}

async function* compareFirst(
  check: Checks,
  dir: string,
  own: UpdateResult,
  golden: GoldenGrpo,
): AsyncGenerator<Verified> {
  yield check.close('loss', [own.loss], [golden.loss], TOLERANCE.loss)
  yield check.close('loss_float64', [own.loss], [golden.loss_float64], TOLERANCE.loss)
  yield* compareMetrics(check, 'metrics', lossMetrics(own.metrics), golden.metrics)
  const gradients = await GoldenTensors.open(join(dir, 'train', 'grpo_grads.safetensors'))
  yield* compareGradients(check, own.gradients, gradients)
}

async function* compareAdapters(
  check: Checks,
  step: number,
  weights: Weights,
  file: string,
  lr: number,
): AsyncGenerator<Verified> {
  const golden = await readSafetensors(file)
  yield check.same(`adapter after step ${step}: names`, Object.keys(weights).toSorted(), Object.keys(golden).toSorted())
  const errors = Object.entries(golden).map(([name, { data, dims }]) => {
    const own = weights[name]
    return own && own.dims.join() === dims.join() ? largestDifference(own.data, data as Float32Array) : Infinity
  })
  yield check.within(`adapter after step ${step}`, Math.max(...errors), TOLERANCE.adapterStep * lr)
}

/** Means of logprobs and entropies may be off as they are; counts may not. */
function* compareMetrics(
  check: Checks,
  name: string,
  own: Readonly<Record<string, number>>,
  golden: GoldenMetrics,
): Generator<Verified> {
  yield check.same(`${name}: names`, Object.keys(own).toSorted(), Object.keys(golden).toSorted())
  for (const [metric, value] of Object.entries(golden)) {
    const tolerance = metric === 'kl' || metric === 'entropy' ? TOLERANCE.logprobs : TOLERANCE.advantages
    const mine = own[metric] ?? NaN
    const error = value === null && Number.isNaN(mine) ? 0 : largestDifference([mine], [value ?? NaN])
    yield check.within(`${name}: ${metric}`, error, tolerance)
  }
}
