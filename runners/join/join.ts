/** A process that takes part in a run of another: its actors pull work from the same queue, at their own pace. */
import { setTimeout as sleep } from 'node:timers/promises'
import { Ports } from '../../actors/ports.ts'
import { openSimilarity } from '../../actors/rewards/similarity.ts'
import type { RunActor } from '../../actors/run-actor.ts'
import { supervisor } from '../../actors/supervisor.ts'
import type { Bus } from '../../bus/bus.ts'
import type { Access } from '../../bus/nats/access.ts'
import type { Net } from '../../bus/net.ts'
import type { Device } from '../../configs/devices.ts'
import type { Config } from '../../configs/schema.ts'
import { type Worker, WORKERS } from '../../configs/workers.ts'
import { Closing } from '../evolve/closing.ts'
import { instanceOf } from '../evolve/instance.ts'
import { loadRunModel } from '../evolve/load.ts'
import { startOptimizer } from '../evolve/optimizer.ts'
import { workers } from '../evolve/workers.ts'
import { fetchCheckpoint } from '../evolve/base-checkpoint.ts'
import { hasEnded } from '../evolve/ended.ts'
import { chooseRun } from './choose-run.ts'
import { enterRun, LOOK_MS } from './enter.ts'

/** An Optimizer that joins stands by. */
export type Joinable = Worker | 'optimizer'

export interface JoinOptions {
  readonly access: Access
  /** The only run of the server if left out. */
  readonly run: string | undefined
  /** How many of each. */
  readonly actors: Readonly<Partial<Record<Joinable, number>>>
  readonly device: Device
  readonly threads: number
  /** A checkpoint folder that may be the base of the run. */
  readonly model: string | null
  readonly cache: string
  readonly show: (event: JoinEvent) => void
  /** Aborts for leaving in order. */
  readonly signal: AbortSignal
}

export type JoinEvent =
  | { readonly event: 'fetching'; readonly bytes: number; readonly total: number }
  | { readonly event: 'joined'; readonly run: string; readonly actors: readonly string[]; readonly device: string }
  | { readonly event: 'version'; readonly version: number; readonly steps: number }
  | { readonly event: 'note'; readonly message: string }
  | { readonly event: 'done'; readonly run: string; readonly version: number | null; readonly seconds: number }

/** Works for a run until it ends; rejects with the signal's reason when it is told to leave. */
export async function join(options: JoinOptions): Promise<void> {
  const started = Date.now()
  const { access, show, signal, cache, model: local } = options
  const closing = new Closing()
  try {
    const run = await chooseRun(access, options.run)
    const { net, bus, config } = await enterRun(access, run, 'join', closing)
    const onProgress = (bytes: number, total: number) => show({ event: 'fetching', bytes, total })
    const dir = await fetchCheckpoint(bus, { cache, local, onProgress, signal })
    const { device, threads } = options
    const own: Config = { ...config, model: { ...config.model, dir, device, threads } }
    const { names, device: used } = await startActors(own, net, options, closing)
    show({ event: 'joined', run, actors: names, device: used })
    const version = await untilEnded(bus, config.steps, show, signal)
    show({ event: 'done', run, version, seconds: (Date.now() - started) / 1000 })
  } finally {
    await closing.close()
  }
}

async function startActors(
  config: Config,
  net: Net,
  { actors, show, signal }: JoinOptions,
  closing: Closing,
): Promise<{ names: string[]; device: string }> {
  // Only a judge needs it; what it names may not be on this machine.
  const similarity = actors.judge ? await openSimilarity(config.similarity) : null
  const running: RunActor[] = []
  const names: string[] = []
  const starters: Record<string, () => RunActor> = {}
  let device = 'none'
  const start = (role: string, create: (ports: Ports) => RunActor): RunActor => {
    const bus = net.connect(instanceOf(role))
    const warn = (message: string, error: unknown) =>
      show({ event: 'note', message: `${role}: ${message}: ${(error as Error).message}` })
    const actor = create(new Ports(bus, { onWarning: warn }))
    running.push(actor)
    return actor
  }
  for (const role of WORKERS) {
    for (let n = 1; n <= (actors[role] ?? 0); n++) {
      signal.throwIfAborted()
      // Only a model actor needs the model; each has one of its own.
      const model = role === 'model' ? closing.add(await loadRunModel(config), (m) => m.dispose()) : null
      if (model) device = model.device
      const name = `${role}-${n}`
      starters[name] = () =>
        start(role, (ports) => workers[role](ports, { config, similarity: similarity!, model: model! }))
      names.push(name)
    }
  }
  const base = async () => {
    const model = await loadRunModel(config)
    return Promise.resolve(model.trainable()).finally(() => model.dispose())
  }
  for (let n = 1; n <= (actors.optimizer ?? 0); n++) {
    const name = `optimizer-${n}`
    starters[name] = () => start('optimizer', (ports) => startOptimizer(ports, { config, base, preempt: false }))
    names.push(name)
  }
  closing.add(running, (list) => Promise.all(list.map((actor) => actor.stop())))
  start('supervisor', (ports) => supervisor(ports, starters))
  return { names, device }
}

/** The version when the run ended. */
async function untilEnded(
  bus: Bus,
  steps: number,
  show: JoinOptions['show'],
  signal: AbortSignal,
): Promise<number | null> {
  let version: number | null = null
  for (;;) {
    const ended = await hasEnded(bus)
    const head = (await bus.getHead())?.head.version ?? null
    if (head !== null && head !== version) show({ event: 'version', version: head, steps })
    version = head
    if (ended) return version
    await sleep(LOOK_MS, undefined, { signal }).catch(() => signal.throwIfAborted())
  }
}
