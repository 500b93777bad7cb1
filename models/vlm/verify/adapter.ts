/** The golden adapter on the golden checkpoint. */
import { join } from 'node:path'
import type { Weights } from '../../tensor.ts'
import { type Adapter, readAdapter } from '../lora.ts'
import { Network } from '../network.ts'
import { LogitsRunner } from './logits-runner.ts'
import type { Variant } from './variant.ts'

export interface AdaptedVariant {
  readonly adapter: Adapter
  /** The base is frozen, A and B are trainable. */
  readonly network: Network
  readonly logits: LogitsRunner
  dispose(): Promise<void>
}

export async function adapt({ dir, network, options }: Variant): Promise<AdaptedVariant> {
  const adapter = await readAdapter(join(dir, 'train', 'adapter'))
  const base: Weights = network.weights
  const context = {
    ...network.context,
    frozen: base,
    trainable: new Map(Object.entries(adapter.weights).map(([name, { dims }]) => [name, dims])),
    lora: adapter.shape,
  }
  const adapted = new Network(context, adapter.weights, options)
  const logits = new LogitsRunner(context, options)
  return {
    adapter,
    network: adapted,
    logits,
    dispose: async () => void (await Promise.all([adapted.dispose(), logits.dispose()])),
  }
}
