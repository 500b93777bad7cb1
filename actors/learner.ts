/** What the Optimizer holds: trainable weights and AdamW's moments of the committed version. Updates are pure. */
import type { Bus } from '../bus/bus.ts'
import type { Head } from '../bus/messages.ts'
import {
  adamWFromTensors,
  adamWToTensors,
  initAdamW,
  stepAdamW,
  type AdamWOptions,
  type AdamWState,
} from '../models/optim/adamw.ts'
import { clipScale, globalNorm } from '../models/optim/clip.ts'
import { learningRate, type Schedule } from '../models/optim/schedule.ts'
import { f32, type HostTensor, type Weights } from '../models/tensor.ts'
import { decodeWeights, encodeWeights } from './weights-codec.ts'

export interface LearnerOptions extends Pick<AdamWOptions, 'betas' | 'eps' | 'weightDecay'> {
  /** Largest global gradient norm; null = off. */
  readonly clip: number | null
  readonly schedule: Schedule
}

/** Weights and moments of a version. */
export interface Learned {
  readonly weights: Weights
  readonly adam: AdamWState
}

export interface Update extends Learned {
  readonly gradNorm: number
  readonly learningRate: number
  /** False when the gradient was not finite: nothing was changed. */
  readonly applied: boolean
}

/** Version 0: the base as it is, moments zero. */
export const fresh = (weights: Weights): Learned => ({ weights, adam: initAdamW(weights) })

/** Puts both as blobs; equal content has equal names. */
export async function store(bus: Bus, { weights, adam }: Learned): Promise<{ adapter: string; optimizer: string }> {
  const [adapter, optimizer] = await Promise.all([
    bus.putBlob(encodeWeights(weights)),
    bus.putBlob(encodeWeights(adamWToTensors(adam))),
  ])
  return { adapter, optimizer }
}

/** The learned state of a committed version. */
export async function restore(bus: Bus, { adapter, optimizer }: Head): Promise<Learned> {
  const [weights, moments] = await Promise.all([bus.getBlob(adapter), bus.getBlob(optimizer)])
  return { weights: decodeWeights(weights, adapter), adam: adamWFromTensors(decodeWeights(moments, optimizer)) }
}

/**
 * One step from the gradients of its micro-batches, given in their order: summed in that order (float addition is not
 * associative, and the same step must give the same bits), clipped, AdamW.
 */
export function update(learned: Learned, gradients: readonly Weights[], step: number, options: LearnerOptions): Update {
  const { betas, eps, weightDecay, clip, schedule } = options
  const lr = learningRate(schedule, step - 1)
  const total = sum(gradients)
  const gradNorm = globalNorm(total)
  if (!Number.isFinite(gradNorm)) return { ...learned, gradNorm, learningRate: lr, applied: false }
  const gradientScale = clipScale(gradNorm, clip)
  const { state, weights } = stepAdamW(learned.adam, learned.weights, total, {
    lr,
    betas,
    eps,
    weightDecay,
    gradientScale,
  })
  return { weights, adam: state, gradNorm, learningRate: lr, applied: true }
}

function sum(parts: readonly Weights[]): Weights {
  const [first, ...others] = parts
  if (!first || others.length === 0) return first ?? {}
  const total: Record<string, HostTensor<'float32'>> = {}
  for (const [name, { data, dims }] of Object.entries(first)) {
    const into = data.slice()
    for (const other of others) add(into, other[name]!.data)
    total[name] = f32(into, dims)
  }
  return total
}

function add(into: Float32Array, other: Float32Array): void {
  for (let i = 0; i < into.length; i++) into[i]! += other[i]!
}
