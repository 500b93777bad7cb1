/** Misfortunes of the network between a process and the server, decided by a seed. Shares are in [0, 1]. */
import type { Clock } from '../../bus/clock.ts'

export interface Climate {
  /** An operation takes effect after up to this many milliseconds; some answers take as long again. */
  readonly latencyMs: number
  /** Share of operations whose answer is lost after they took effect: the client repeats them. */
  readonly unanswered: number
  /** Share of operations that fail for good, before or after they took effect. */
  readonly refused: number
  /** Share of notifications (of records, of moves of a value) after which a reader pauses, for up to `noticeMs`. */
  readonly late: number
  readonly noticeMs: number
  /** Share of notifications after which a subscription breaks. */
  readonly broken: number
  /** Share of published tasks that are published once more, some time later, whatever has become of them. */
  readonly doubled: number
  /** Share of acknowledgements that do not arrive. */
  readonly unacknowledged: number
}

/** What has happened. */
export type Count = 'lostAnswers' | 'refusals' | 'lateNotices' | 'brokenStreams' | 'doubledTasks' | 'lostAcks'

/** A client asks again after this time. */
const ASK_AGAIN_MS = 1_500
/** Operations that fail at all: a server that is away for a minute is away for everybody. */
const MOST_REFUSALS = 3

export class OutOfReachError extends Error {
  override name = 'OutOfReachError'
}

export class Weather {
  readonly counts: Record<Count, number> = {
    lostAnswers: 0,
    refusals: 0,
    lateNotices: 0,
    brokenStreams: 0,
    doubledTasks: 0,
    lostAcks: 0,
  }

  constructor(
    readonly clock: Clock,
    readonly climate: Climate,
    readonly random: () => number,
  ) {}

  /** On the way to the server or back; null = it takes no time. */
  travel(): Promise<void> | null {
    const ms = this.#upTo(this.climate.latencyMs)
    return ms > 0 ? this.pause(ms) : null
  }

  /** Whether the answer of an operation is lost. */
  losesAnswer(): boolean {
    return this.#happens(this.climate.unanswered, 'lostAnswers')
  }

  /** The client notices that no answer came. */
  silence(): Promise<void> {
    return this.pause(ASK_AGAIN_MS)
  }

  refuses(): boolean {
    return this.counts.refusals < MOST_REFUSALS && this.#happens(this.climate.refused, 'refusals')
  }

  /** Before a notification reaches its reader; null = at once. */
  notice(): Promise<void> | null {
    const { late, noticeMs } = this.climate
    return noticeMs > 0 && this.#happens(late, 'lateNotices') ? this.pause(1 + this.#upTo(noticeMs)) : null
  }

  breaks(): boolean {
    return this.#happens(this.climate.broken, 'brokenStreams')
  }

  doubles(): boolean {
    return this.#happens(this.climate.doubled, 'doubledTasks')
  }

  losesAck(): boolean {
    return this.#happens(this.climate.unacknowledged, 'lostAcks')
  }

  /** By the time of the world, not by that of a process: what is under way arrives although its sender hangs. */
  pause(ms: number): Promise<void> {
    return new Promise((resolve) => this.clock.setTimeout(resolve, ms))
  }

  #upTo(ms: number): number {
    return ms > 0 ? Math.floor(this.random() * (ms + 1)) : 0
  }

  #happens(share: number, count: Count): boolean {
    if (share === 0 || this.random() >= share) return false
    this.counts[count]++
    return true
  }
}
