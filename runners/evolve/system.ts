/** The whole pipeline on one page: every actor of a run, each with a bus of its own, under one supervisor. */
import { evaluator, type Evaluator } from '../../actors/evaluator.ts'
import { Ports } from '../../actors/ports.ts'
import { recorder, type Recorder, type RecorderOptions } from '../../actors/recorder.ts'
import type { Similarity } from '../../actors/rewards/similarity.ts'
import type { RunActor } from '../../actors/run-actor.ts'
import { source } from '../../actors/source.ts'
import { supervisor } from '../../actors/supervisor.ts'
import type { Bus } from '../../bus/bus.ts'
import type { Net } from '../../bus/net.ts'
import type { Config } from '../../configs/schema.ts'
import { WORKERS } from '../../configs/workers.ts'
import type { Model } from '../../models/model.ts'
import type { Weights } from '../../models/tensor.ts'
import { instanceOf } from './instance.ts'
import { startOptimizer } from './optimizer.ts'
import { workers } from './workers.ts'
import type { RunWorld } from './world.ts'

export interface SystemOptions {
  readonly config: Config
  readonly net: Net
  readonly model: Model
  /** Trainable weights of the base. */
  readonly base: Weights
  readonly similarity: Similarity
  readonly world: RunWorld
  readonly record: Pick<RecorderOptions, 'dir' | 'onRecord' | 'onGallery'>
  readonly onWarning: (message: string, error: unknown) => void
}

const ROLES = ['recorder', 'evaluator', 'model', 'optimizer', 'judge', 'reasoner', 'questioner', 'source'] as const
type Role = (typeof ROLES)[number]

export class System {
  readonly #options: SystemOptions
  readonly #running = new Map<string, { readonly actor: RunActor; readonly bus: Bus }>()
  #recorder: Recorder | null = null
  #evaluator: Evaluator | null = null

  constructor(options: SystemOptions) {
    this.#options = options
  }

  start(): void {
    const { config } = this.#options
    const away: readonly string[] = WORKERS.filter((role) => !config.workers.includes(role))
    const roles = ROLES.filter((role) => !away.includes(role))
    const starters = Object.fromEntries(roles.map((role) => [role, () => this.#start(role, this.#creators[role])]))
    this.#start('supervisor', (ports) => supervisor(ports, starters))
  }

  /** Everything up to a sequence number of the log is in the files of the run. */
  written(seq: number): Promise<void> {
    return this.#recorder!.written(seq)
  }

  /** Measures a version on all held-out questions. */
  measure(version: number): void {
    this.#evaluator!.measure(version)
  }

  /** Ends some actors in order, all of them when none is named. */
  async stop(roles: readonly (Role | 'supervisor')[] = ['supervisor', ...ROLES.toReversed()]): Promise<void> {
    // One after the other, from the source on: those behind still finish what those before have begun.
    for (const role of roles) {
      const running = this.#running.get(role)
      this.#running.delete(role)
      await running?.actor.stop()
      await running?.bus.close()
    }
  }

  #start<A extends RunActor>(role: string, create: (ports: Ports) => A): A {
    const { net, onWarning } = this.#options
    const bus = net.connect(instanceOf(role))
    const actor = create(new Ports(bus, { onWarning: (message, error) => onWarning(`${role}: ${message}`, error) }))
    this.#running.set(role, { actor, bus })
    return actor
  }

  readonly #creators: Readonly<Record<Role, (ports: Ports) => RunActor>> = {
    source: (ports) => {
      const { config, world } = this.#options
      const { groups, steps, seed, train } = config
      const { images: perStep, perTask } = groups
      return source(ports, { images: world.images, perStep, perTask, steps, seed, maxLag: train.maxLag })
    },
    questioner: (ports) => workers.questioner(ports, this.#options),
    reasoner: (ports) => workers.reasoner(ports, this.#options),
    judge: (ports) => workers.judge(ports, this.#options),
    model: (ports) => workers.model(ports, this.#options),
    optimizer: (ports) => {
      const { config, base } = this.#options
      return startOptimizer(ports, { config, base: () => base, preempt: true })
    },
    evaluator: (ports) => {
      const { config, world } = this.#options
      const { every, probe, samples } = config.eval
      return (this.#evaluator = evaluator(ports, {
        sets: world.sets,
        every,
        probe,
        samples,
        steps: config.steps,
        prompt: config.prompts.reasoner,
        maxNewTokens: config.generation.maxAnswerTokens,
        seed: config.seed,
      }))
    },
    recorder: (ports) => {
      const { config, record } = this.#options
      return (this.#recorder = recorder(ports, { ...record, alarms: config.alarms, images: config.groups.images }))
    },
  }
}
