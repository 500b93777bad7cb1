/**
 * The bus in one process's memory: same semantics, same bytes and same validation as the carrier on NATS, with an
 * injectable clock and seeded faults, so that a whole run can be simulated deterministically.
 *
 * @example
 * const net = createMemoryNet('demo', { clock: new SimulatedClock(), faults: { seed: 1, drop: 0.1 } })
 * const bus = net.connect('questioner.1')
 */
import type { Bus } from './bus.ts'
import { CarriedBus } from './carried-bus.ts'
import { MemoryCarrier } from './memory/memory-carrier.ts'
import { SharedMemory, type MemoryNetOptions } from './memory/shared-memory.ts'
import type { Net } from './net.ts'

export interface MemoryNet extends Net {
  /** The process of a bus of this network dies: its tasks come back after the acknowledgement time. */
  crash(bus: Bus): void
  /** Damages a stored blob, as a bad disk would. */
  corruptBlob(name: string): void
}

/** One run's network: every bus that it connects sees the same tasks, log, head and blobs. */
export function createMemoryNet(run: string, options: MemoryNetOptions = {}): MemoryNet {
  const net = new SharedMemory(run, options)
  const carriers = new Map<Bus, MemoryCarrier>()
  return {
    run,
    connect: (by) => {
      const carrier = new MemoryCarrier(net, by)
      const bus = new CarriedBus(carrier)
      carriers.set(bus, carrier)
      return bus
    },
    close: async () => {
      for (const bus of carriers.keys()) await bus.close()
    },
    crash: (bus) => carriers.get(bus)?.crash(),
    corruptBlob: (name) => net.blobs.corrupt(name),
  }
}
