/** Watches the log of a run: tells the terminal, and knows when the run is over, and how. */
import { isCollapse } from '../../actors/alarms.ts'
import type { RecorderRecord } from '../../actors/recorder.ts'
import type { GalleryLine } from '../../actors/run-files.ts'
import { imagesOf, stepOf } from '../../actors/ids.ts'
import type { EventData } from '../../bus/messages.ts'
import type { Config } from '../../configs/schema.ts'
import type { EvolveEvent } from '../cli/events.ts'
import { newsOf, sampleOf } from './news.ts'

/** The run cannot go on; the message says why. */
export class RunError extends Error {
  override name = 'RunError'
}

export class Watch {
  readonly #config: Config
  readonly #from: number
  readonly #show: (event: EvolveEvent) => void
  readonly #over: Promise<number>
  #end: (version: number) => void = () => {}
  #fail: (error: Error) => void = () => {}
  #best = { version: 0, score: -Infinity }
  #head = 0
  /** Given-up images of each step. */
  readonly #dead = new Map<number, number>()
  readonly #warned = new Map<string, number>()

  /** Steps up to `from` were told by an earlier process. */
  constructor(config: Config, from: number, show: (event: EvolveEvent) => void) {
    this.#config = config
    this.#from = from
    this.#show = show
    this.#over = new Promise((resolve, reject) => {
      this.#end = resolve
      this.#fail = reject
    })
    this.#over.catch(() => {})
  }

  /** The version that the run ends with; rejects when it cannot go on, and with the signal's reason. */
  end(signal: AbortSignal): Promise<number> {
    return new Promise((resolve, reject) => {
      const abort = () => reject(signal.reason as Error)
      if (signal.aborted) abort()
      signal.addEventListener('abort', abort, { once: true })
      this.#over.then(resolve, reject).finally(() => signal.removeEventListener('abort', abort))
    })
  }

  record(record: RecorderRecord): void {
    const news = newsOf(record, this.#config.steps)
    if (news && !this.#isOld(record)) this.#show(news)
    switch (record.event) {
      case 'version':
        this.#head = Math.max(this.#head, record.message.data.weights)
        if (this.#config.steps === 0) this.#end(0)
        break
      case 'step':
        if (record.message.data.step >= this.#config.steps) this.#end(this.#config.steps)
        break
      case 'eval':
        this.#noteProbe(record.message.data)
        break
      case 'alarm':
        if (!this.#config.stopOnAlarm || !isCollapse(record.message.data.name)) break
        this.#end(this.#best.score > -Infinity ? this.#best.version : this.#head)
        break
      case 'dead':
        this.#bury(record.message.data)
        break
      case 'questions':
      case 'answers':
      case 'verdict':
    }
  }

  gallery(lines: readonly GalleryLine[]): void {
    const sample = sampleOf(lines)
    if (sample?.event === 'sample' && sample.step > this.#from) this.#show(sample)
  }

  /** Survivable trouble is shown when it is new, and at its 10th, 100th, … time; a bus that is gone ends the run. */
  warn(message: string, error: unknown): void {
    const cause = error instanceof Error ? error : new Error(String(error))
    if (cause.name === 'UnavailableError' || (cause as NodeJS.ErrnoException).code === 'ENOSPC') {
      this.#fail(new RunError(`${message}: ${cause.message}`, { cause }))
      return
    }
    const times = (this.#warned.get(cause.message) ?? 0) + 1
    this.#warned.set(cause.message, times)
    if (!/^10*$/.test(String(times))) return
    this.#show({ event: 'note', message: `${message}: ${cause.message}${times > 1 ? ` (${times} times)` : ''}` })
  }

  supersede(): void {
    this.#fail(new RunError('another process has taken over this run; only one may train it'))
  }

  #isOld(record: RecorderRecord): boolean {
    return 'step' in record.message.data && record.message.data.step <= this.#from && this.#from > 0
  }

  #noteProbe({ probe, weights, mean1, greedy }: EventData<'eval'>): void {
    const score = (mean1 + greedy) / 2
    if (probe && score > this.#best.score) this.#best = { version: weights, score }
  }

  #bury({ kind, id, cause }: EventData<'dead'>): void {
    const step = stepOf(id)
    if (kind !== 'questioner.images' || step === null) return
    const dead = (this.#dead.get(step) ?? 0) + imagesOf(id).length
    this.#dead.set(step, dead)
    if (dead >= this.#config.groups.images) {
      this.#fail(new RunError(`every image of step ${step} was given up, the last one because of: ${cause}`))
    }
  }
}
