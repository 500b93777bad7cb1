/** A run's network seen from one process: buses of several actors over one connection. */
import type { Bus } from './bus.ts'

export interface Net {
  readonly run: string
  /** A bus for the actor `by` (`role.instance`); close it alone, or all with the net. */
  connect(by: string): Bus
  /** Closes every bus of this net in order, then the connection. */
  close(): Promise<void>
}
