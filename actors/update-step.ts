/** One optimizer step from a judged batch: gradients of its parts from the model actors, summed and applied. */
import type { EventData } from '../bus/messages.ts'
import { addMetrics, lossMetrics, roleLossMetrics } from '../models/losses/metrics.ts'
import { assemble, type AssembleOptions, type Assembled, type Part } from './assemble.ts'
import { DeadTaskError } from './dead-tasks.ts'
import { gradientId } from './ids.ts'
import { update, type Learned, type LearnerOptions } from './learner.ts'
import { encodeMicroBatch } from './micro-batch.ts'
import type { Ports } from './ports.ts'
import type { StepBatch } from './step-book.ts'
import { decodeWeights } from './weights-codec.ts'

export type UpdateOptions = AssembleOptions & LearnerOptions
type Gradient = EventData<'gradient'>

export interface StepUpdate {
  readonly learned: Learned
  /** Trained groups, in canonical order. */
  readonly groups: readonly string[]
  readonly dropped: Assembled['dropped']
  readonly metrics: Readonly<Record<string, number>>
  /** Blobs that nobody needs once the step is committed. */
  readonly garbage: readonly string[]
}

/** Computes the step on top of version `head`; commits nothing. */
export async function updateStep(
  ports: Ports,
  batch: StepBatch,
  head: number,
  learned: Learned,
  options: UpdateOptions,
  signal: AbortSignal,
): Promise<StepUpdate> {
  const { parts, dropped } = assemble(batch, head, options)
  const blobs = await Promise.all(parts.map((part) => ports.bus.putBlob(encodeMicroBatch(part.batch))))
  const answers = await Promise.all(
    blobs.map((blob, index) => gradientOf(ports, { step: batch.step, index, batch: blob, weights: head }, signal)),
  )
  const gradients = answers.filter((answer) => typeof answer !== 'string')
  const garbage = [...blobs, ...gradients.map(({ gradient }) => gradient)]
  const lost = parts.flatMap((part, i) => {
    const answer = answers[i]!
    return typeof answer === 'string' ? drop(part, answer) : []
  })
  const computed = parts.filter((_, i) => typeof answers[i] !== 'string')
  if (gradients.length === 0) {
    return { learned, groups: [], dropped: [...dropped, ...lost], metrics: {}, garbage }
  }
  const weights = await Promise.all(
    gradients.map(async ({ gradient }) => decodeWeights(await ports.bus.viewBlob(gradient), gradient)),
  )
  const next = update(learned, weights, batch.step, options)
  const refused = next.applied ? [] : computed.flatMap((part) => drop(part, 'the gradient is not finite'))
  return {
    learned: next,
    groups: next.applied ? computed.flatMap((part) => part.groups) : [],
    dropped: [...dropped, ...lost, ...refused],
    metrics: { ...gradientMetrics(gradients), learning_rate: next.learningRate, grad_norm: next.gradNorm },
    garbage,
  }
}

/** The gradient of a part, or why there is none. */
async function gradientOf(
  ports: Ports,
  task: { step: number; index: number; batch: string; weights: number },
  signal: AbortSignal,
): Promise<Gradient | string> {
  const id = gradientId(task.step, task.index, task.batch)
  try {
    return (await ports.request('model.gradient', id, task, { signal, again: false })).message.data
  } catch (error) {
    if (error instanceof DeadTaskError) return error.message
    throw error
  }
}

const drop = (part: Part, reason: string) => part.groups.map((group) => ({ group, reason }))

/** TRL's figures of the update: sums over parts, then means. */
function gradientMetrics(gradients: readonly Gradient[]): Record<string, number> {
  const add = (value: (g: Gradient) => number) => gradients.reduce((sum, g) => sum + value(g), 0)
  const sums = addMetrics(gradients.map((gradient) => gradient.metrics))
  return {
    ...lossMetrics(sums),
    ...roleLossMetrics(sums, 'questioner'),
    ...roleLossMetrics(sums, 'reasoner'),
    loss: add((g) => g.loss),
    num_tokens: add((g) => g.tokens),
    'seconds/gradient': add((g) => g.seconds),
  }
}
