/** Label-free figures of a judged batch, relative to the start of the run where they need one. */
import type { Bus } from '../bus/bus.ts'
import { stepId } from './ids.ts'
import { stepMetrics, type StepMetrics } from './rewards/step-metrics.ts'
import type { StepBatch } from './step-book.ts'

const FIRST_STEP = 1

/** Metrics of the batches of one run, in order of their steps. */
export function batchMetrics(bus: Bus, noneWords?: readonly string[]): (batch: StepBatch) => Promise<StepMetrics> {
  let typesAtStart: number | null = null
  return async ({ step, images, answers, verdicts }) => {
    if (step > FIRST_STEP && typesAtStart === null) {
      const first = await bus.find('step', stepId(FIRST_STEP))
      typesAtStart = first?.message.data.metrics['questioner/types'] ?? null
    }
    return stepMetrics({
      questions: [...images.values()].toSorted((a, b) => a.index - b.index),
      answers: [...answers.values()],
      verdicts: [...verdicts.values()],
      typesAtStart: step === FIRST_STEP ? null : typesAtStart,
      ...(noneWords && { noneWords }),
    })
  }
}
