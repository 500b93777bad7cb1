/** Pieces of `config.json` that families share, in the layouts of transformers 4 and 5. */
import { z } from 'zod'
import { CheckpointError } from '../io/checkpoint-error.ts'
import type { TextConfig } from '../layers/text-config.ts'

/** Bounds far above every published model, so that no loop or table follows from a hostile number. */
export const count = z
  .int()
  .positive()
  .max(2 ** 24)
export const few = z.int().positive().max(1024)
export const epsilon = z.number().positive().max(1)
const theta = z.number().min(1).max(1e12)
export const tokenId = z.int().nonnegative()
export const tokenIds = z.union([tokenId, z.array(tokenId)])
/** Explicit null means the default, as in transformers. */
export const or = <S extends z.ZodType, D>(schema: S, fallback: D) =>
  schema.nullish().transform((value) => value ?? fallback)
/** What the shared layers compute, and nothing else. */
export const only = <T extends string | number | boolean | null>(value: T) => or(z.literal(value), value)
/** Pixels a side of a square. */
export const side = z.union([
  count,
  z
    .tuple([count, count])
    .refine(([h, w]) => h === w, 'only squares')
    .transform(([h]) => h),
])

const rope = { rope_type: only('default'), type: only('default') }

/** `text_config` of a Llama model. */
export const llamaSchema = z.looseObject({
  model_type: only('llama'),
  hidden_size: or(count, 4096),
  num_hidden_layers: or(few, 32),
  num_attention_heads: or(few, 32),
  num_key_value_heads: few.nullish(),
  head_dim: few.nullish(),
  intermediate_size: or(count, 11008),
  vocab_size: or(count, 32000),
  rms_norm_eps: or(epsilon, 1e-6),
  rope_theta: theta.nullish(),
  rope_parameters: z.looseObject({ rope_theta: theta.nullish(), rope_type: rope.rope_type }).nullish(),
  rope_scaling: z.looseObject(rope).nullish(),
  hidden_act: only('silu'),
  attention_bias: only(false),
  mlp_bias: only(false),
  tie_word_embeddings: z.boolean().nullish(),
  pad_token_id: tokenId.nullish(),
  eos_token_id: tokenIds.nullish(),
})

/** `text_config` of a Mistral model, which is a Llama model unless it looks through a sliding window. */
export const mistralSchema = llamaSchema.extend({
  model_type: z.literal('mistral'),
  num_key_value_heads: or(few, 8),
  intermediate_size: or(count, 14336),
  sliding_window: z.null(),
})

type LlamaJson = Pick<
  z.output<typeof llamaSchema>,
  | 'hidden_size'
  | 'num_hidden_layers'
  | 'num_attention_heads'
  | 'num_key_value_heads'
  | 'head_dim'
  | 'intermediate_size'
  | 'vocab_size'
  | 'rms_norm_eps'
  | 'rope_theta'
  | 'rope_parameters'
>

export const generationSchema = z.looseObject({
  eos_token_id: tokenIds.nullish(),
  pad_token_id: tokenId.nullish(),
})

/** Sizes of the text model; whether the output projection is tied is for the family to say. */
export function textConfig(text: LlamaJson, tied: boolean): TextConfig {
  return {
    hiddenSize: text.hidden_size,
    layers: text.num_hidden_layers,
    heads: text.num_attention_heads,
    kvHeads: text.num_key_value_heads ?? text.num_attention_heads,
    headDim: text.head_dim ?? Math.floor(text.hidden_size / text.num_attention_heads),
    intermediate: text.intermediate_size,
    vocab: text.vocab_size,
    rmsEps: text.rms_norm_eps,
    ropeTheta: text.rope_parameters?.rope_theta ?? text.rope_theta ?? 10_000,
    tied,
  }
}

export type Relation = readonly [holds: boolean, what: string]

/** Relations between sizes that the text layers rely on. */
export const textRelations = ({ heads, kvHeads, headDim }: TextConfig): Relation[] => [
  [heads % kvHeads === 0, `${heads} attention heads over ${kvHeads} key/value heads`],
  [headDim % 2 === 0, `rotary embedding of an odd head_dim ${headDim}`],
  [headDim >= 2 && headDim <= 1024, `head_dim ${headDim}`],
]

/** Throws a `CheckpointError` for the first relation that does not hold. */
export function checkRelations(relations: readonly Relation[], file: string): void {
  for (const [holds, what] of relations) {
    if (holds) continue
    throw new CheckpointError(`impossible sizes: ${what}; use the config.json that belongs to the weights`, { file })
  }
}
