/** Opens what a server answers with. */
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { Ports } from '../../actors/ports.ts'
import type { Bus } from '../../bus/bus.ts'
import type { Access } from '../../bus/nats/access.ts'
import { connectNet } from '../../bus/nats/net.ts'
import { loadTokenizer } from '../../models/io/tokenizer.ts'
import { fetchCheckpoint } from '../evolve/base-checkpoint.ts'
import type { Closing } from '../evolve/closing.ts'
import { hasEnded } from '../evolve/ended.ts'
import { instanceOf } from '../evolve/instance.ts'
import { configOf } from '../join/choose-run.ts'
import { LOOK_MS } from '../join/enter.ts'
import { JoinError } from '../join/join-error.ts'
import type { Backend } from './backend.ts'
import { runBackend } from './run-backend.ts'

export interface RunPlace {
  readonly access: Access
  readonly run: string
  /** Where checkpoints of runs of other machines are kept. */
  readonly cache: string
}

export interface OpenOptions {
  readonly onNote: (message: string) => void
  readonly signal: AbortSignal
}

/**
 * The model actors of a run that goes on. `ended` resolves when the run has ended. Throws JoinError when nobody works on
 * it any more.
 */
export async function openRun(
  { access, run, cache }: RunPlace,
  closing: Closing,
  { onNote, signal }: OpenOptions,
): Promise<{ backend: Backend; ended: Promise<void> }> {
  const net = closing.add(await connectNet(access, run), (n) => n.close())
  const bus = net.connect(instanceOf('serve'))
  if (await hasEnded(bus))
    throw new JoinError(`run ${run} has ended; serve its checkpoint with --model, or --model and --adapter`)
  const { model } = await configOf(bus)
  // Only the tokenizer is needed; a folder of this machine has it.
  const dir = existsSync(join(model.dir, 'tokenizer.json'))
    ? model.dir
    : await fetchCheckpoint(bus, { cache, local: null, onProgress: () => {}, signal })
  const ports = new Ports(bus, {
    onWarning: (message, error) => onNote(`${message}: ${(error as Error).message}`),
  })
  closing.add(ports, (p) => p.close())
  return { backend: runBackend(ports, await loadTokenizer(dir), signal), ended: untilEnded(bus, signal) }
}

async function untilEnded(bus: Bus, signal: AbortSignal): Promise<void> {
  while (!signal.aborted && !(await hasEnded(bus))) await sleep(LOOK_MS, undefined, { signal }).catch(() => undefined)
}
