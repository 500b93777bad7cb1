/** The JSON and tensor files of a golden variant, with every field named: an unknown one is an error, not unseen. */
import { z } from 'zod'
import { trlConfigSchema } from '../../losses/verify-grpo.ts'
import { CheckpointError } from '../../io/checkpoint-error.ts'
import { readSafetensors } from '../../io/safetensors.ts'
import type { HostTensor, TensorMap } from '../../tensor.ts'

const numbers = z.array(z.number())
const ints = z.array(z.int())
const part = z.union([
  z.strictObject({ type: z.literal('text'), text: z.string() }),
  z.strictObject({ type: z.literal('image'), path: z.string() }),
])
const digest = z.strictObject({
  shape: ints,
  mean: z.number(),
  std: z.number(),
  min: z.number(),
  max: z.number(),
  first: numbers,
})
const pixels = digest.extend({ stored: z.enum(['full', 'sample']) })

export const caseSchema = z.strictObject({
  messages: z.array(z.strictObject({ role: z.string(), content: z.array(part) })),
  prompt: z.string(),
  num_tokens: z.int(),
  input_ids: ints,
  image_token_runs: z.array(z.tuple([z.int(), z.int()])),
  position_ids: z.enum(['0..T-1', 'tensor position_ids [3,T]: temporal, height, width']),
  rope_delta: z.int().optional(),
  tile_rows: ints.optional(),
  tile_cols: ints.optional(),
  image_sizes: z.array(z.tuple([z.int(), z.int()])).optional(),
  image_grid_thw: z.array(z.tuple([z.int(), z.int(), z.int()])).optional(),
  pixel_attention_mask: z.strictObject({ shape: ints, all_ones: z.boolean() }).optional(),
  pixel_values: pixels.optional(),
  pixel_values_on_white: pixels.optional(),
  image_features: digest.optional(),
  logits: z.strictObject({
    shape: ints,
    stored: z.enum(['full', 'last + sample']),
    std: z.number(),
    argmax_last: z.int(),
    last_change_at_half_contrast: z.number().optional(),
  }),
  greedy: z.strictObject({
    ids: ints,
    logprobs: numbers,
    top2_logit_margin: numbers,
    text: z.string(),
    matches_hf_generate: z.boolean(),
  }),
  completion: z.strictObject({
    ids: ints,
    text: z.string(),
    logprobs: numbers,
    sum_logprob: z.number(),
    entropies: numbers,
  }),
})
export type GoldenCase = z.infer<typeof caseSchema>
/** What of a case a family's processor says of its pictures beside pixels; no family says all of it. */
export const PICTURE_FIELDS = [
  'tile_rows',
  'tile_cols',
  'image_sizes',
  'image_grid_thw',
  'pixel_attention_mask',
] as const
export type GoldenPixels = z.infer<typeof pixels>

export const batchSchema = z.strictObject({
  cases: z.array(z.string()),
  padding_side: z.literal('left'),
  pad_token_id: z.int(),
  max_abs_gap_to_single_all_positions: z.number(),
  argmax_last: ints,
})

const summary = z.strictObject({ shape: ints, l2: z.number(), sum: z.number(), first16: numbers })
/** What is stored of a tensor that is too many to keep whole. */
export type GoldenSummary = z.infer<typeof summary>

export const sftSchema = z.strictObject({
  loss: z.number(),
  loss_float64: z.number(),
  label_tokens: z.int(),
  without_gradient: z.array(z.string()),
  grads: z.record(z.string(), summary),
})

export const mergedSchema = z.strictObject({
  weights: z.record(z.string(), summary),
  max_abs_gap_to_adapter_logits: z.number(),
})

/** null = NaN. */
const metrics = z.record(z.string(), z.number().nullable())
export type GoldenMetrics = z.infer<typeof metrics>

export const grpoSchema = z.strictObject({
  rows: z.literal('prompts of cases single, single, interleaved, interleaved; completions below'),
  num_generations: z.int().positive(),
  completions: z.array(z.string()),
  config: trlConfigSchema,
  reward_metrics: metrics,
  loss: z.number(),
  loss_float64: z.number(),
  metrics,
  optimizer: z.strictObject({
    name: z.literal('AdamW, decoupled weight decay on A and B; gradients scaled by min(1, max_norm / (norm + 1e-6))'),
    lr: z.number(),
    betas: z.tuple([z.number(), z.number()]),
    adam_eps: z.number(),
    weight_decay: z.number(),
    max_grad_norm: z.number(),
    loss_per_step: numbers,
    grad_norm_before_clip_per_step: numbers,
    metrics_per_step: z.array(metrics),
  }),
})
export type GoldenGrpo = z.infer<typeof grpoSchema>

const resampleNames = ['LANCZOS', 'BILINEAR', 'BICUBIC'] as const
export const preprocessingSchema = z.strictObject({
  image_processor: z.string(),
  processor: z.string(),
  resample: z.enum(resampleNames),
  settings: z.record(z.string(), z.json()),
  torchvision: z.strictObject({
    processor: z.string(),
    abs_gap_to_pil: z.record(z.string(), z.strictObject({ max: z.number(), mean: z.number() })),
  }),
})
/** Pillow's code of a filter. */
export const resampleCode = (name: (typeof resampleNames)[number]): number => 1 + resampleNames.indexOf(name)

/** Tensors of one golden file; remembers which were asked for, so that none stays unseen. */
export class GoldenTensors {
  readonly #unread: Set<string>

  private constructor(
    private readonly file: string,
    private readonly tensors: TensorMap,
  ) {
    this.#unread = new Set(Object.keys(tensors))
  }

  static async open(file: string): Promise<GoldenTensors> {
    return new GoldenTensors(file, await readSafetensors(file))
  }

  has(name: string): boolean {
    return name in this.tensors
  }

  tensor(name: string): HostTensor {
    const tensor = this.tensors[name]
    if (!tensor) throw new CheckpointError('no such tensor in this file', { file: this.file, tensor: name })
    this.#unread.delete(name)
    return tensor
  }

  /** As numbers, whatever the stored type. */
  numbers(name: string): ArrayLike<number> {
    const { data } = this.tensor(name)
    return data instanceof BigInt64Array ? Array.from(data, Number) : data
  }

  /** Row `row` of a tensor [rows, …]. */
  row(name: string, row: number): number[] {
    const data = this.numbers(name)
    const width = data.length / this.tensor(name).dims[0]!
    return Array.from({ length: width }, (_, i) => data[row * width + i]!)
  }

  names(): string[] {
    return Object.keys(this.tensors)
  }

  /** Names that nobody asked for. */
  unread(): string[] {
    return [...this.#unread]
  }
}
