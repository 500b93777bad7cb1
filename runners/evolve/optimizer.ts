/** The Optimizer of a run, in the process that began it or standing by in another one. */
import { batchMetrics } from '../../actors/batch-metrics.ts'
import { isDue } from '../../actors/evaluator.ts'
import { optimizer } from '../../actors/optimizer.ts'
import type { Ports } from '../../actors/ports.ts'
import type { RunActor } from '../../actors/run-actor.ts'
import type { OptimizerOptions } from '../../actors/training-job.ts'
import type { Config } from '../../configs/schema.ts'
import { assembleOptions } from './assemble-options.ts'
import { instanceOf } from './instance.ts'

export interface StartOptimizerOptions extends Pick<OptimizerOptions, 'base'> {
  readonly config: Config
  /** The process of the run itself leads at once; others stand by. */
  readonly preempt: boolean
}

/** How the two kinds are called in the lease. */
export const LEADER = 'evolve'
export const STANDBY = 'standby'

export function startOptimizer(ports: Ports, { config, base, preempt }: StartOptimizerOptions): RunActor {
  const { optimizer: adam, groups, steps, keepVersions } = config
  const { lr: peak, schedule: kind, warmup, ...rest } = adam
  return optimizer(ports, {
    ...rest,
    ...assembleOptions(config),
    election: { me: { instance: instanceOf('optimizer'), name: preempt ? LEADER : STANDBY, version: '1' }, preempt },
    schedule: { kind, peak, warmup, total: steps },
    base,
    steps,
    images: groups.images,
    batchMetrics: batchMetrics(ports.bus),
    keepVersions,
    keeps: (version) => isDue(version, { every: config.eval.every, steps }),
  })
}
