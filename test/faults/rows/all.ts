/** The rows of the suite, in order. A fault is one file here and one line. */
import type { Fault } from '../fault.ts'
import { killedWorkers } from './01-killed-workers.ts'
import { frozenWorker } from './02-frozen-worker.ts'
import { killedServer } from './03-killed-server.ts'
import { killedOptimizer } from './04-killed-optimizer.ts'
import { twoOptimizers } from './05-two-optimizers.ts'
import { network } from './06-network.ts'
import { poison } from './07-poison.ts'
import { storageFull } from './08-storage-full.ts'
import { frozenTap } from './09-frozen-tap.ts'
import { slowOptimizer } from './10-slow-optimizer.ts'
import { badBlobs } from './11-bad-blobs.ts'
import { everything } from './12-everything.ts'
import { duplicates } from './13-duplicates.ts'
import { clocks } from './14-clocks.ts'
import { schemas } from './15-schemas.ts'
import { simulation } from './16-simulation.ts'
import { hosts } from './hosts.ts'

export const ROWS: readonly Fault[] = [
  killedWorkers,
  frozenWorker,
  killedServer,
  killedOptimizer,
  twoOptimizers,
  network,
  poison,
  storageFull,
  frozenTap,
  slowOptimizer,
  badBlobs,
  everything,
  duplicates,
  clocks,
  schemas,
  simulation,
  hosts,
]
