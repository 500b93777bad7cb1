/** What passes between a model's thread and its caller. Both ends are this process, so types suffice. */
import type { GenerateRequest, Model, PolicyGroup, SampledToken } from '../model.ts'
import type { GrpoConfig } from '../losses/grpo-config.ts'
import type { Weights } from '../tensor.ts'
import type { LoadOptions } from './load-options.ts'

/** A picture crosses by key; its bytes are asked for when they are needed. */
export interface ImageKey {
  readonly key: string
}
export type Keyed<T> = Omit<T, 'image'> & { readonly image: ImageKey | null }

export type Call =
  | {
      readonly method: 'generate'
      readonly requests: readonly Keyed<GenerateRequest>[]
      /** Whether somebody wants to hear of every token. */
      readonly listen: boolean
    }
  | { readonly method: 'logprobs'; readonly groups: readonly Keyed<PolicyGroup>[] }
  | { readonly method: 'policyGradient'; readonly groups: readonly Keyed<PolicyGroup>[]; readonly loss: GrpoConfig }
  | { readonly method: 'load'; readonly weights: Weights }
  | { readonly method: 'dispose' }

export type ToWorker =
  | { readonly kind: 'call'; readonly id: number; readonly call: Call }
  | { readonly kind: 'image'; readonly key: string; readonly bytes: Uint8Array }
  | { readonly kind: 'no-image'; readonly key: string; readonly error: unknown }

export type FromWorker =
  | {
      readonly kind: 'ready'
      readonly about: Pick<Model, 'family' | 'device' | 'parameters'>
      readonly trainable: Weights
    }
  | { readonly kind: 'failed'; readonly error: unknown }
  | { readonly kind: 'result'; readonly id: number; readonly value: unknown }
  | { readonly kind: 'error'; readonly id: number; readonly error: unknown }
  | { readonly kind: 'need'; readonly key: string }
  | { readonly kind: 'token'; readonly id: number; readonly token: SampledToken }

export interface WorkerStart {
  readonly dir: string
  readonly options: LoadOptions
}
