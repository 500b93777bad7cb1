/** `config.json` of Qwen2.5-VL checkpoints (MiMo-VL too), in the flat layout of the hub and in that of transformers 5. */
import { join } from 'node:path'
import { z } from 'zod'
import { CheckpointError } from '../../io/checkpoint-error.ts'
import { readJson, readJsonIfPresent } from '../../io/json-file.ts'
import type { TextArchitecture, TextConfig } from '../../layers/text-config.ts'
import {
  checkRelations,
  count,
  generationSchema,
  only,
  or,
  type Relation,
  textConfig,
  textRelations,
  tokenId,
  tokenIds,
} from '../config-schema.ts'

export interface VisionConfig {
  readonly hidden: number
  readonly layers: number
  readonly heads: number
  readonly intermediate: number
  /** Pixels a side of a patch. */
  readonly patch: number
  /** Frames of a patch; a picture is repeated. */
  readonly temporalPatch: number
  /** `merge`² neighbouring patches become one image token. */
  readonly merge: number
  /** Pixels a side of an attention window. */
  readonly window: number
  /** Layers that attend to the whole picture. */
  readonly fullAttention: readonly number[]
}

export interface Qwen25VlConfig {
  readonly text: TextConfig & { readonly mropeSection: NonNullable<TextArchitecture['mropeSection']> }
  readonly vision: VisionConfig
  readonly imageTokenId: number
  /** Tokens that end an answer; `generation_config.json` decides, then the text config. */
  readonly eosTokenIds: readonly number[]
  readonly padTokenId: number | undefined
  /** Type of the stored weights as the config names it (`float32`, `bfloat16`, …). */
  readonly dtype: string | undefined
}

/** Base of the rotary frequencies of the vision tower; no checkpoint has another. */
export const VISION_ROPE_THETA = 10_000

/** `rope_scaling` of the hub, `rope_parameters` of transformers 5. */
const ropeSchema = z.looseObject({
  type: z.enum(['mrope', 'default']).nullish(),
  rope_type: z.enum(['mrope', 'default']).nullish(),
  rope_theta: z.number().positive().nullish(),
  mrope_section: z.tuple([count, count, count]).nullish(),
})

const textSchema = z.looseObject({
  hidden_size: or(count, 8192),
  num_hidden_layers: or(count, 80),
  num_attention_heads: or(count, 64),
  num_key_value_heads: count.nullable().default(8),
  head_dim: count.nullish(),
  intermediate_size: or(count, 29_568),
  vocab_size: or(count, 152_064),
  rms_norm_eps: or(z.number().positive(), 1e-5),
  rope_theta: z.number().positive().nullish(),
  rope_scaling: ropeSchema.nullish(),
  rope_parameters: ropeSchema.nullish(),
  hidden_act: only('silu'),
  use_sliding_window: only(false),
  layer_types: z.array(z.literal('full_attention')).nullish(),
  tie_word_embeddings: z.boolean().nullish(),
  eos_token_id: tokenIds.nullish(),
  pad_token_id: tokenId.nullish(),
})

const visionSchema = z.looseObject({
  hidden_size: or(count, 3584),
  out_hidden_size: or(count, 3584),
  depth: or(count, 32),
  num_heads: or(count, 16),
  intermediate_size: or(count, 3420),
  in_channels: only(3),
  in_chans: only(3),
  patch_size: or(count, 14),
  temporal_patch_size: or(count, 2),
  spatial_merge_size: or(count, 2),
  window_size: or(count, 112),
  fullatt_block_indexes: or(z.array(z.int().nonnegative()), [7, 15, 23, 31]),
  hidden_act: only('silu'),
  rope_parameters: z.looseObject({ rope_theta: only(VISION_ROPE_THETA), rope_type: only('axial') }).nullish(),
})

const modelTypeSchema = z.looseObject({ model_type: z.string() })
const rootSchema = z.looseObject({
  vision_config: or(visionSchema, visionSchema.parse({})),
  image_token_id: or(tokenId, 151_655),
  tie_word_embeddings: z.boolean().nullish(),
  dtype: z.string().nullish(),
  torch_dtype: z.string().nullish(),
})
/** The hub has the fields of the text model beside the others. */
const nestedSchema = z.looseObject({ text_config: textSchema.nullish() })

/** The text model as the shared layers build it. */
export const textArchitecture = ({ text }: Qwen25VlConfig): TextArchitecture => ({
  ...text,
  prefix: 'model.language_model',
  attentionBias: true,
})

/** Read `config.json` and `generation_config.json` (optional) of a checkpoint folder. */
export async function loadQwen25VlConfig(dir: string): Promise<Qwen25VlConfig> {
  const file = join(dir, 'config.json')
  const { model_type: type } = await readJson(file, modelTypeSchema)
  if (type !== 'qwen2_5_vl')
    throw new CheckpointError(`model_type "${type}" is not of this family (supported: qwen2_5_vl)`, { file })
  const root = await readJson(file, rootSchema)
  const text = (await readJson(file, nestedSchema)).text_config ?? (await readJson(file, textSchema))
  const generation = await readJsonIfPresent(join(dir, 'generation_config.json'), generationSchema)
  const config = typed(root, text, generation ?? {})
  checkDimensions(config, text.head_dim ?? undefined, root.vision_config.out_hidden_size, file)
  return config
}

function typed(
  root: z.output<typeof rootSchema>,
  text: z.output<typeof textSchema>,
  generation: z.output<typeof generationSchema>,
): Qwen25VlConfig {
  const { vision_config: vision } = root
  const rope = text.rope_scaling ?? text.rope_parameters
  const theta = rope?.rope_theta ?? text.rope_theta ?? 1_000_000
  const tied = root.tie_word_embeddings || text.tie_word_embeddings || false
  return {
    text: {
      ...textConfig({ ...text, head_dim: null, rope_theta: theta, rope_parameters: null }, tied),
      mropeSection: rope?.mrope_section ?? [16, 24, 24],
    },
    vision: {
      hidden: vision.hidden_size,
      layers: vision.depth,
      heads: vision.num_heads,
      intermediate: vision.intermediate_size,
      patch: vision.patch_size,
      temporalPatch: vision.temporal_patch_size,
      merge: vision.spatial_merge_size,
      window: vision.window_size,
      fullAttention: vision.fullatt_block_indexes,
    },
    imageTokenId: root.image_token_id,
    eosTokenIds: [generation.eos_token_id ?? text.eos_token_id ?? []].flat(),
    padTokenId: generation.pad_token_id ?? text.pad_token_id ?? undefined,
    dtype: root.dtype ?? root.torch_dtype ?? undefined,
  }
}

/** Relations between sizes that the layers rely on. */
function checkDimensions(
  { text, vision }: Qwen25VlConfig,
  headDim: number | undefined,
  visionOut: number,
  file: string,
): void {
  const rotated = text.mropeSection.reduce((a, b) => a + b, 0)
  const relations: Relation[] = [
    [text.hiddenSize % text.heads === 0, `hidden_size ${text.hiddenSize} over ${text.heads} attention heads`],
    ...textRelations(text),
    [headDim === undefined || headDim === text.headDim, `head_dim ${headDim} instead of ${text.headDim}`],
    [2 * rotated === text.headDim, `mrope_section [${text.mropeSection.join(', ')}] for a head_dim of ${text.headDim}`],
    [visionOut === text.hiddenSize, `out_hidden_size ${visionOut} into a text model of ${text.hiddenSize}`],
    [vision.hidden % (4 * vision.heads) === 0, `vision hidden_size ${vision.hidden} over ${vision.heads} heads`],
    [
      vision.window >= vision.patch * vision.merge,
      `windows of ${vision.window} pixels, an image token has ${vision.patch * vision.merge}`,
    ],
  ]
  checkRelations(relations, file)
}
