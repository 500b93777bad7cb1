/** A run in one process on the memory bus, with a deterministic stand-in model: for tests of the protocol only. */
import { createHash } from 'node:crypto'
import { createMemoryNet, type MemoryNet } from '../../bus/memory.ts'
import type { Clock } from '../../bus/clock.ts'
import type { Faults } from '../../bus/memory/faults.ts'
import type { Bus } from '../../bus/bus.ts'
import type { Net } from '../../bus/net.ts'
import { batchMetrics } from '../../actors/batch-metrics.ts'
import { judge } from '../../actors/judge.ts'
import { modelActor } from '../../actors/model-actor.ts'
import { optimizer, type Election } from '../../actors/optimizer.ts'
import { Ports } from '../../actors/ports.ts'
import { questioner } from '../../actors/questioner.ts'
import { reasoner } from '../../actors/reasoner.ts'
import { exactSimilarity } from '../../actors/rewards/similarity.ts'
import { createJudge } from '../../actors/rewards/recipes/registry.ts'
import type { RunActor } from '../../actors/run-actor.ts'
import { source } from '../../actors/source.ts'
import type { GenerateRequest, Generated, Model, PolicyGradient, PolicyGroup } from '../../models/model.ts'
import { f32, type Weights } from '../../models/tensor.ts'

const COLORS = ['red', 'blue', 'green']
const QUESTIONS = ['What color is the circle?', 'What color is the star?', 'Which color has the box?', 'nonsense']
const SIZE = 16

function uniform(...parts: readonly (string | number)[]): number {
  return createHash('sha256').update(parts.join('|')).digest().readUInt32LE(0) / 2 ** 32
}

const tokensOf = (text: string): number[] => [...text].map((c) => c.charCodeAt(0))

/** Everything that it says depends on the weights, the key and the seed, as a real model's words do. */
export class ToyModel implements Model {
  readonly family = 'toy'
  readonly device = 'test'
  readonly parameters = { total: SIZE, trainable: SIZE }
  /** Sizes of the batches that it was given. */
  readonly batches: number[] = []
  generated = 0
  gradients = 0
  /** Throws for these requests. */
  poison: (request: GenerateRequest) => boolean = () => false
  /** Its work takes a while. */
  readonly #pause: () => Promise<unknown>
  #weights: Weights = {
    w: f32(
      Float32Array.from({ length: SIZE }, (_, i) => Math.sin(i)),
      [SIZE],
    ),
  }

  constructor(pause: () => Promise<unknown> = () => new Promise(setImmediate)) {
    this.#pause = pause
  }

  trainable(): Weights {
    return this.#weights
  }

  load(weights: Weights): void {
    if (weights.w?.data.length !== SIZE) throw new RangeError('weights of another model')
    this.#weights = weights
  }

  async generate(requests: readonly GenerateRequest[]): Promise<readonly Generated[]> {
    await this.#pause()
    this.batches.push(requests.length)
    this.generated += requests.length
    return requests.map((request) => {
      if (this.poison(request)) throw new Error(`poisoned by ${request.key}`)
      return { promptTokens: 4, samples: Array.from({ length: request.samples }, (_, g) => this.#sample(request, g)) }
    })
  }

  #sample({ key, prompt, seed, temperature }: GenerateRequest, g: number) {
    const u = temperature === 0 ? 0.5 : uniform(seed, key, g)
    const drift = this.#weights.w!.data[Math.floor(uniform(prompt) * SIZE)]!
    const pick = <T>(list: readonly T[], x: number) => list[Math.floor(Math.abs(x * list.length)) % list.length]!
    const color = pick(COLORS, u + 0.1 * drift)
    const text = prompt === 'ask' ? `${pick(QUESTIONS, uniform(seed, key, g, 'q'))} ${color}` : color
    const tokens = tokensOf(text)
    return { text, tokens, logprobs: tokens.map((t) => Math.fround(-u - t / 1000)), finished: true }
  }

  async logprobs(groups: readonly PolicyGroup[]): Promise<number[][][]> {
    await this.#pause()
    return groups.map((group) => group.completions.map((c) => c.tokens.map((t) => -t / 1000)))
  }

  async policyGradient(groups: readonly PolicyGroup[]): Promise<PolicyGradient> {
    await this.#pause()
    this.gradients++
    const gradient = new Float32Array(SIZE)
    let tokens = 0
    for (const { completions } of groups) {
      for (const completion of completions) {
        tokens += completion.tokens.length
        for (const t of completion.tokens) {
          const slope = completion.advantage * completion.weight
          gradient[t % SIZE]! -= slope * (1 + 0.1 * this.#weights.w!.data[t % SIZE]!)
        }
      }
    }
    return { gradients: { w: f32(gradient, [SIZE]) }, loss: gradient[0]!, metrics: { token_count: tokens }, tokens }
  }

  async dispose(): Promise<void> {}
}

/** What decides the result of a run. */
export interface RunSize {
  readonly steps?: number
  readonly images?: number
  readonly perStep?: number
  readonly perTask?: number
  readonly microBatchImages?: number
  readonly maxLag?: number
  readonly seed?: number
  /** Figures of the batch in the `step` event. */
  readonly batchMetrics?: boolean
  readonly questions?: number
  readonly answers?: number
}

export interface WorldOptions extends RunSize {
  /** The memory bus when left out. */
  readonly net?: Net
  readonly faults?: Faults
  readonly clock?: Clock
  readonly ackWaitMs?: number
  /** Whether a further Optimizer takes over at once; else it stands by. */
  readonly preempt?: boolean
  /** Makes an actor's bus fail at chosen moments. */
  readonly wrap?: (role: string, bus: Bus) => Bus
}

export type RoleName = 'source' | 'questioner' | 'reasoner' | 'judge' | 'optimizer' | 'model'
export const ROLES: readonly RoleName[] = ['model', 'optimizer', 'judge', 'reasoner', 'questioner', 'source']

export class World {
  readonly net: Net
  /** Of the process of an actor; null on another carrier. */
  readonly #memory: MemoryNet | null
  readonly model = new ToyModel()
  readonly warnings: string[] = []
  readonly actors = new Map<RoleName, { actor: RunActor; raw: Bus }>()
  readonly #options: WorldOptions
  readonly #others: { actor: RunActor; raw: Bus }[] = []
  #instances = 0

  constructor(options: WorldOptions = {}) {
    this.#options = options
    const { faults, clock, ackWaitMs } = options
    const memory = { ...(faults && { faults }), ...(clock && { clock }), ...(ackWaitMs !== undefined && { ackWaitMs }) }
    this.#memory = options.net ? null : createMemoryNet('test', memory)
    this.net = options.net ?? this.#memory!
  }

  start(roles: readonly RoleName[] = ROLES): this {
    for (const role of roles) this.startOne(role)
    return this
  }

  startOne(role: RoleName): RunActor {
    const raw = this.net.connect(`${role}.${++this.#instances}`)
    const bus = this.#options.wrap?.(role, raw) ?? raw
    const me = { instance: `${role}.${this.#instances}`, name: 'test', version: '1' }
    const cast = { model: this.model, election: { me, preempt: this.#options.preempt ?? true } }
    const actor = startRole(role, this.ports(role, bus), this.#options, cast)
    this.actors.set(role, { actor, raw })
    return actor
  }

  ports(role: string, bus: Bus): Ports {
    const onWarning = (message: string, error: unknown) =>
      this.warnings.push(`${role}: ${message}: ${error instanceof Error ? error.message : String(error)}`)
    return new Ports(bus, { ...(this.#options.clock && { clock: this.#options.clock }), onWarning })
  }

  /** Another actor of the same role, beside the one there is. */
  startAnother(role: RoleName): void {
    const first = this.actors.get(role)
    this.startOne(role)
    if (first) this.#others.push(first)
  }

  /** The process of an actor is gone at once: nothing is given back in order. */
  async crash(role: RoleName): Promise<void> {
    const { actor, raw } = this.actors.get(role)!
    this.actors.delete(role)
    this.#memory!.crash(raw)
    await actor.stop()
  }

  /** The same for the first of those that were started beside the one there is. */
  async crashFirst(role: RoleName): Promise<void> {
    const { actor, raw } = this.#others.find((other) => other.actor.role === role)!
    this.#memory!.crash(raw)
    await actor.stop()
  }

  async crashAndRestart(role: RoleName): Promise<void> {
    await this.crash(role)
    this.startOne(role)
  }

  /** Waits until the last step is in the log, whoever put it there. */
  async finished(): Promise<this> {
    const bus = this.net.connect('test.wait')
    await bus.await('step', `s${this.#options.steps ?? 2}`, AbortSignal.timeout(60_000))
    await bus.close()
    return this
  }

  /** Adapter of every committed version, in order. */
  async adapters(): Promise<string[]> {
    const log = await logOf(this.net)
    return log.flatMap((r) => (r.event === 'version' ? [r.message.data.adapter] : []))
  }

  async stop(): Promise<void> {
    await Promise.all([...this.actors.values(), ...this.#others].map(({ actor }) => actor.stop()))
    await this.net.close()
  }
}

/** Whom an actor of a role works with. */
export interface Cast {
  readonly model: Model
  readonly election: Election
}

/** Starts an actor of a role of this run. */
export function startRole(role: RoleName, ports: Ports, options: RunSize, { model, election }: Cast): RunActor {
  const { steps = 2, perStep = 4, perTask = 1, images = 6, microBatchImages = 2, maxLag = 0 } = options
  const { questions = 2, answers = 4, seed = 7 } = options
  const sampling = { maxNewTokens: 64, temperature: 1, seed, images: perStep }
  switch (role) {
    case 'source':
      return source(ports, {
        images: Array.from({ length: images }, (_, i) => ({
          name: `${i}.png`,
          read: () => Promise.resolve(new TextEncoder().encode(`image ${i}`)),
        })),
        perStep,
        perTask,
        steps,
        seed,
        maxLag,
      })
    case 'questioner':
      return questioner(ports, { ...sampling, prompt: 'ask', questions })
    case 'reasoner':
      return reasoner(ports, { ...sampling, prompt: '{question}', answers })
    case 'judge':
      return judge(ports, { recipe: createJudge('consensus'), similarity: exactSimilarity, images: perStep })
    case 'model':
      return modelActor(ports, { model })
    case 'optimizer':
      return optimizer(ports, {
        election,
        base: () => new ToyModel().trainable(),
        steps,
        images: perStep,
        batchMetrics: options.batchMetrics ? batchMetrics(ports.bus) : () => Promise.resolve({}),
        loss: { loss_type: 'grpo', epsilon: 0.2, epsilon_high: null, delta: null, beta: 0, sampler_cap: null },
        maxTokens: { questioner: 64, reasoner: 64 },
        roleWeights: { questioner: 1, reasoner: 1 },
        microBatchImages,
        maxLag,
        betas: [0.9, 0.95],
        eps: 1e-8,
        weightDecay: 0,
        clip: 1,
        schedule: { kind: 'constant', peak: 0.05, warmup: 0, total: steps },
        keepVersions: 2,
        keeps: (version) => version === 0,
      })
  }
}

/** All records of a log, as plain data. */
export async function logOf(net: Net) {
  const bus = net.connect('test.log')
  const records = []
  const events = [
    'image',
    'questions',
    'answers',
    'verdict',
    'step',
    'version',
    'dropped',
    'dead',
    'alarm',
    'generated',
    'gradient',
  ] as const
  for await (const record of bus.read(events, { follow: false, signal: new AbortController().signal })) {
    records.push(record)
  }
  await bus.close()
  return records
}
