/** What a run without faults ends at, for each number of steps: every run with faults must end at the same. */
import { createHash } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { program } from '../support/program.ts'
import { SMALL_LEARNING } from '../support/small-run.ts'

export const SEED = 3
/** Seconds until the work of a dead process comes back. */
export const ACK_WAIT_S = 2

/** Arguments of every run of the suite. */
export const runArgs = (folder: string, name: string, steps: number): string[] => [
  ...['evolve', '--json', '--out', folder, '--run', name, '--seed', String(SEED), '--steps', String(steps)],
  ...[...SMALL_LEARNING, '--set', `bus.ackWait=${ACK_WAIT_S}`],
]

export async function shaOf(folder: string): Promise<string> {
  const bytes = await readFile(join(folder, 'checkpoints', 'final', 'model.safetensors'))
  return createHash('sha256').update(bytes).digest('hex')
}

export class Reference {
  readonly #known = new Map<number, Promise<string>>()

  constructor(private readonly dir: string) {}

  sha(steps: number): Promise<string> {
    let known = this.#known.get(steps)
    if (!known) this.#known.set(steps, (known = this.#run(steps)))
    return known
  }

  async #run(steps: number): Promise<string> {
    const name = `undisturbed-${steps}`
    const folder = join(this.dir, name)
    const { code, stderr } = await program(runArgs(folder, name, steps))
    if (code !== 0) throw new Error(`the undisturbed run of ${steps} steps failed: ${stderr}`)
    return shaOf(folder)
  }
}
