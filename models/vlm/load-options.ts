/** How a model is loaded. */
import type { Precision } from '../layers/precision.ts'
import type { Device } from '../runtime/session.ts'
import type { MemoryUse } from './weight-holding.ts'

/** Which weights an update may change. */
export type TrainMode =
  | { readonly kind: 'none' }
  /** The weights themselves: all of them, or those that image features depend on. */
  | { readonly kind: 'full'; readonly part?: 'vision' }
  /** New adapters on the linear layers of the text model whose module name matches the pattern `targets`. */
  | {
      readonly kind: 'lora'
      readonly r: number
      readonly alpha: number
      readonly targets: string
      readonly seed: number
    }

export interface LoadOptions {
  /** `auto` chooses the CPU: the other execution providers must be asked for by name. */
  readonly device?: Device | 'auto'
  /** Threads of one operator; 0 = all cores. */
  readonly threads?: number
  /** Folder of a PEFT adapter. With `train: lora` it is what the training starts from. */
  readonly adapter?: string
  readonly train?: TrainMode
  /** In which precision requests marked as rollouts are sampled; default fp32. Needs a frozen text model. */
  readonly rollouts?: Precision
  /** How frozen weights are held; default `auto`, which chooses by the size of the model. */
  readonly memory?: MemoryUse
  /** Whether updates compute activations of layers again instead of keeping them; default `auto`. */
  readonly recompute?: boolean | 'auto'
}
