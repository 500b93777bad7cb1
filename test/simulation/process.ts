/** A process of a simulation: it works, hangs for a while, or is dead. Its clock goes wrong by a constant. */
import type { Clock } from '../../bus/clock.ts'
import type { RoleName } from '../support/actors-world.ts'

export class SimProcess implements Clock {
  /** Deliveries that it holds and that must not go wrong, lest their tasks are given up for bad luck alone. */
  spared = 0
  #state: 'running' | 'frozen' | 'dead' = 'running'
  /** What happens when it goes on. */
  readonly #later: (() => void)[] = []

  constructor(
    readonly role: RoleName,
    /** `role.instance` on the bus. */
    readonly by: string,
    readonly world: Clock,
    /** What its clock shows beyond the time of the world. */
    readonly skewMs: number,
    /** Told before and after each of its operations; may freeze or kill it. */
    readonly onOperation: (process: SimProcess, operation: string, when: 'before' | 'after') => void,
  ) {}

  get state(): 'running' | 'frozen' | 'dead' {
    return this.#state
  }

  now(): number {
    return this.world.now() + this.skewMs
  }

  setTimeout(run: () => void, ms: number): unknown {
    return this.world.setTimeout(() => this.#whenAwake(run), ms)
  }

  clearTimeout(handle: unknown): void {
    this.world.clearTimeout(handle)
  }

  /** Null while it runs; else a promise that resolves when it goes on, for a dead process never. */
  awake(): Promise<void> | null {
    if (this.#state === 'running') return null
    return new Promise((resolve) => this.#whenAwake(resolve))
  }

  /** It is about to do something, or has just done it; the moment at which misfortune strikes. */
  reaches(operation: string, when: 'before' | 'after'): Promise<void> | null {
    if (this.#state === 'running') this.onOperation(this, operation, when)
    return this.awake()
  }

  pause(ms: number): Promise<void> {
    return new Promise((resolve) => this.setTimeout(resolve, ms))
  }

  freeze(): void {
    if (this.#state === 'running') this.#state = 'frozen'
  }

  thaw(): void {
    if (this.#state !== 'frozen') return
    this.#state = 'running'
    for (const run of this.#later.splice(0)) run()
  }

  kill(): void {
    this.#state = 'dead'
    this.#later.length = 0
  }

  #whenAwake(run: () => void): void {
    if (this.#state === 'running') run()
    else if (this.#state === 'frozen') this.#later.push(run)
  }
}
