/** What the rest of the system sees of a vision-language model: the only face that actors and runners talk to. */
import type { GrpoConfig } from './losses/grpo-config.ts'
import type { Weights } from './tensor.ts'

/** An image by content key; `read` gives the bytes of the encoded file (PNG, JPEG, …) and may be called again. */
export interface ImageSource {
  readonly key: string
  read(): Promise<Uint8Array>
}

/** `samples` completions of one prompt about one image (null: text only). */
export interface GenerateRequest {
  /** Keys the counter-based random numbers: sample g, token t of a request depend on (seed, key, g, t) alone, never on the batch. */
  readonly key: string
  readonly image: ImageSource | null
  /** User text; the chat template and image placeholders are added by the processor, the image first. */
  readonly prompt: string
  readonly samples: number
  readonly maxNewTokens: number
  /** 0 = greedy. */
  readonly temperature: number
  readonly seed: number
  /** A sample to learn from: it may come from weights rounded as `LoadOptions.rollouts` says. Default: the exact weights. */
  readonly rollout?: boolean
}

export interface Sample {
  /** Decoded without special tokens. */
  readonly text: string
  /** The end token, when sampled, is the last one. */
  readonly tokens: readonly number[]
  /** Natural logarithm of the probability of each token at T = 1, under the weights that sampled it. */
  readonly logprobs: readonly number[]
  readonly finished: boolean
}

/** A token as it is sampled, for whoever does not wait for the whole. */
export interface SampledToken {
  /** Index of the request in the call. */
  readonly request: number
  readonly sample: number
  /** Index of the token in its sample. */
  readonly position: number
  readonly token: number
  readonly logprob: number
  /** Text of the sample so far, as far as later tokens cannot change it: the beginning of its final `text`. */
  readonly text: string
}

export interface Generated {
  readonly samples: readonly Sample[]
  readonly promptTokens: number
}

/** One distinct completion in an update. */
export interface PolicyCompletion {
  readonly tokens: readonly number[]
  /**
   * Sampler's logprobs of the tokens: "old" logprobs of the clipped ratio. null = these very weights sampled it: the
   * ratio is 1, and the last bits of what the sampler computed, which vary with its batches, do not matter.
   */
  readonly logprobs: readonly number[] | null
  readonly advantage: number
  /** Weight of each token of this completion in the loss sum (normalisation of the loss type × multiplicity). */
  readonly weight: number
  /** Samples that it stands for, in the metrics; default 1. */
  readonly count?: number
}

/** Completions of one prompt; groups of one image share its prefix in the token tree. */
export interface PolicyGroup {
  readonly image: ImageSource | null
  readonly prompt: string
  /** Whose completions they are: figures about the sampler are also given for each role, as `<role>/…`. */
  readonly role?: string
  readonly completions: readonly PolicyCompletion[]
}

export interface PolicyGradient {
  /** d loss / d parameter, by parameter name. The loss is a plain sum of weighted token terms, so micro-batches add. */
  readonly gradients: Weights
  readonly loss: number
  /** Sums and counts that add over micro-batches (`kl_sum`, `entropy_sum`, `clip_low_sum`, `clip_high_sum`, `tokens`, …). */
  readonly metrics: Readonly<Record<string, number>>
  readonly tokens: number
}

/** Loaded model: sessions in worker threads, trainable weights as inputs (a swap rebuilds nothing). */
export interface Model {
  readonly family: string
  readonly device: string
  /** Number of all and of trainable parameters. */
  readonly parameters: { readonly total: number; readonly trainable: number }
  /** The current trainable weights (adapter, or everything in full fine-tuning). Treat as immutable. */
  trainable(): Weights
  /** Swap in other trainable weights of the same names and shapes; throws on a mismatch or a non-finite value. */
  load(weights: Weights): void
  /** `onToken` is told of every token of every sample at once, in the order of sampling. */
  generate(requests: readonly GenerateRequest[], onToken?: (token: SampledToken) => void): Promise<readonly Generated[]>
  /** Logprobs of given completions under the current weights, one array per completion per group. */
  logprobs(groups: readonly PolicyGroup[]): Promise<readonly (readonly number[])[][]>
  policyGradient(groups: readonly PolicyGroup[], loss: GrpoConfig): Promise<PolicyGradient>
  dispose(): Promise<void>
}
