/** `config.json` of SmolVLM and Idefics3 checkpoints, in the layouts of transformers 4 and 5, as one typed value. */
import { join } from 'node:path'
import { z } from 'zod'
import { CheckpointError } from '../../io/checkpoint-error.ts'
import { readJson, readJsonIfPresent } from '../../io/json-file.ts'
import type { TextArchitecture, TextConfig } from '../../layers/text-config.ts'
import {
  checkRelations,
  count,
  epsilon,
  few,
  generationSchema,
  llamaSchema,
  only,
  or,
  side,
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
  /** Pixels a side of a patch, and of the image that the position table is made for. */
  readonly patch: number
  readonly image: number
  readonly layerNormEps: number
}

export interface SmolVlmConfig {
  readonly modelType: (typeof modelTypes)[number]
  readonly text: TextConfig
  readonly vision: VisionConfig
  /** Pixel shuffle: `scaleFactor`² patches become one image token. */
  readonly scaleFactor: number
  readonly imageTokenId: number
  /** Tokens that end an answer; `generation_config.json` decides, then the text config. */
  readonly eosTokenIds: readonly number[]
  readonly padTokenId: number | undefined
  /** Type of the stored weights as the config names it (`float32`, `bfloat16`, …). */
  readonly dtype: string | undefined
}

/** The text model as the shared layers take it. */
export const textArchitecture = ({ text }: Pick<SmolVlmConfig, 'text'>): TextArchitecture => ({
  ...text,
  prefix: 'model.text_model',
  attentionBias: false,
  mropeSection: null,
})

export const modelTypes = ['smolvlm', 'idefics3'] as const

const visionSchema = z.looseObject({
  hidden_size: or(count, 1152),
  num_hidden_layers: or(few, 12),
  num_attention_heads: or(few, 16),
  intermediate_size: or(count, 3072),
  num_channels: or(z.literal(3), 3),
  patch_size: or(side, 32),
  image_size: or(side, 224),
  layer_norm_eps: or(epsilon, 1e-6),
  hidden_act: only('gelu_pytorch_tanh'),
})

const modelTypeSchema = z.looseObject({ model_type: z.string() })
const configSchema = z.looseObject({
  model_type: z.enum(modelTypes),
  // Without a text config, these two classes override Llama's epsilon.
  text_config: or(llamaSchema, llamaSchema.parse({ rms_norm_eps: 1e-5 })),
  vision_config: or(visionSchema, visionSchema.parse({})),
  scale_factor: or(few, 2),
  image_token_id: or(tokenId, 128_257),
  tie_word_embeddings: or(z.boolean(), false),
  pad_token_id: tokenId.nullish(),
  _pad_token_id: tokenId.nullish(),
  eos_token_id: tokenIds.nullish(),
  dtype: z.string().nullish(),
  torch_dtype: z.string().nullish(),
})

/** Read `config.json` and `generation_config.json` (optional) of a checkpoint folder. */
export async function loadSmolVlmConfig(dir: string): Promise<SmolVlmConfig> {
  const file = join(dir, 'config.json')
  const { model_type: type } = await readJson(file, modelTypeSchema)
  if (!modelTypes.some((known) => known === type)) {
    throw new CheckpointError(
      `model_type "${type}" is not of this family (supported: ${modelTypes.join(', ')}); use another checkpoint`,
      {
        file,
      },
    )
  }
  const raw = await readJson(file, configSchema)
  const generation = await readJsonIfPresent(join(dir, 'generation_config.json'), generationSchema)
  const config = typed(raw, generation ?? {})
  checkDimensions(config, file)
  return config
}

function typed(raw: z.output<typeof configSchema>, generation: z.output<typeof generationSchema>): SmolVlmConfig {
  const { text_config: text, vision_config: vision } = raw
  return {
    modelType: raw.model_type,
    text: textConfig(text, raw.tie_word_embeddings),
    vision: {
      hidden: vision.hidden_size,
      layers: vision.num_hidden_layers,
      heads: vision.num_attention_heads,
      intermediate: vision.intermediate_size,
      patch: vision.patch_size,
      image: vision.image_size,
      layerNormEps: vision.layer_norm_eps,
    },
    scaleFactor: raw.scale_factor,
    imageTokenId: raw.image_token_id,
    eosTokenIds: [generation.eos_token_id ?? raw.eos_token_id ?? text.eos_token_id ?? []].flat(),
    padTokenId: generation.pad_token_id ?? text.pad_token_id ?? raw.pad_token_id ?? raw._pad_token_id ?? undefined,
    dtype: raw.dtype ?? raw.torch_dtype ?? undefined,
  }
}

/** Relations between sizes that the layers rely on. */
function checkDimensions({ text, vision, scaleFactor }: SmolVlmConfig, file: string): void {
  const patches = Math.floor(vision.image / vision.patch)
  checkRelations(
    [
      ...textRelations(text),
      [vision.hidden % vision.heads === 0, `vision hidden_size ${vision.hidden} over ${vision.heads} heads`],
      [
        patches % scaleFactor === 0 && vision.image >= vision.patch,
        `${patches} patches a side (image ${vision.image}, patch ${vision.patch}) over scale_factor ${scaleFactor}`,
      ],
    ],
    file,
  )
}
