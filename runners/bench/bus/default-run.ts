/**
 * Steps as those of the default run, with every actor of it in this process: on whatever bus, as often as one likes. As
 * many of them bring new images as of the whole run. Only its evaluations are left out, which use the bus less than the
 * steps do.
 */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { openSimilarity, type Similarity } from '../../../actors/rewards/similarity.ts'
import type { Net } from '../../../bus/net.ts'
import { loadConfig } from '../../../configs/load.ts'
import type { Config } from '../../../configs/schema.ts'
import type { Model } from '../../../models/model.ts'
import type { Weights } from '../../../models/tensor.ts'
import { Closing } from '../../evolve/closing.ts'
import { loadRunModel } from '../../evolve/load.ts'
import { System } from '../../evolve/system.ts'
import { Watch } from '../../evolve/watch.ts'
import { prepareWorld, type RunWorld } from '../../evolve/world.ts'

export interface DefaultRunOptions {
  readonly steps: number
  /** `key=value` each, over the defaults; for small runs. */
  readonly sets: readonly string[]
  readonly signal: AbortSignal
  readonly onNote: (line: string) => void
}

export interface Took {
  readonly seconds: number
  /** Of all threads of this process. */
  readonly coreSeconds: number
}

/** Fewer steps, and fewer images in the same proportion. */
function excerpt({ sets, steps }: DefaultRunOptions): Config {
  const whole = loadConfig({ sets: [...sets] })
  const images = Math.max(whole.groups.images, Math.ceil((whole.world.images * steps) / whole.steps))
  return loadConfig({ sets: [...sets, `steps=${steps}`, `world.images=${images}`, 'world.evalImages=1'] })
}

export class DefaultRun {
  readonly #config: Config
  readonly #options: DefaultRunOptions
  readonly #dir: string
  readonly #model: Model
  readonly #base: Weights
  readonly #world: RunWorld
  readonly #similarity: Similarity
  readonly #closing: Closing
  #runs = 0

  private constructor(
    config: Config,
    options: DefaultRunOptions,
    dir: string,
    model: Model,
    world: RunWorld,
    similarity: Similarity,
    closing: Closing,
  ) {
    this.#config = config
    this.#options = options
    this.#dir = dir
    this.#model = model
    this.#base = model.trainable()
    this.#world = { ...world, sets: [] }
    this.#similarity = similarity
    this.#closing = closing
  }

  /** Loads the model and renders the images, in a folder that `close` removes. */
  static async open(options: DefaultRunOptions): Promise<DefaultRun> {
    const closing = new Closing()
    try {
      options.onNote('preparing the model and the images of the default run')
      const config = excerpt(options)
      const dir = closing.add(await mkdtemp(join(tmpdir(), 'visplay-bench-')), (d) => rm(d, { recursive: true }))
      const model = closing.add(await loadRunModel(config), (m) => m.dispose())
      const world = await prepareWorld(config, dir, options.signal)
      const similarity = await openSimilarity(config.similarity)
      return new DefaultRun(config, options, dir, model, world, similarity, closing)
    } catch (error) {
      await closing.close()
      throw error
    }
  }

  /** From the start of the actors to the last step's record in the log; begins at the base every time. */
  async play(net: Net): Promise<Took> {
    const { signal, onNote } = this.#options
    const config = this.#config
    this.#model.load(this.#base)
    const watch = new Watch(config, 0, (event) => event.event === 'note' && onNote(event.message))
    const system = new System({
      config,
      net,
      model: this.#model,
      base: this.#base,
      similarity: this.#similarity,
      world: this.#world,
      record: { dir: await mkdtemp(join(this.#dir, 'run-')), onRecord: (record) => watch.record(record) },
      onWarning: (message, error) => watch.warn(message, error),
    })
    const [start, before] = [performance.now(), process.cpuUsage()]
    try {
      system.start()
      await watch.end(signal)
      const { user, system: kernel } = process.cpuUsage(before)
      return { seconds: (performance.now() - start) / 1000, coreSeconds: (user + kernel) / 1e6 }
    } finally {
      await system.stop()
    }
  }

  /** Another name at each call. */
  nextRun(): string {
    return `bench-${++this.#runs}`
  }

  close(): Promise<void> {
    return this.#closing.close()
  }
}
