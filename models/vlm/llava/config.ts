/** `config.json` of LLaVA 1.5 and LLaVA-NeXT checkpoints, in the layouts of transformers 4 and 5, as one typed value. */
import { join } from 'node:path'
import { z } from 'zod'
import { readJson, readJsonIfPresent } from '../../io/json-file.ts'
import type { TextArchitecture } from '../../layers/text-config.ts'
import {
  checkRelations,
  count,
  generationSchema,
  llamaSchema,
  mistralSchema,
  only,
  or,
  side,
  textConfig,
  textRelations,
  tokenId,
  tokenIds,
} from '../config-schema.ts'
import type { ClipConfig } from './clip.ts'

export interface LlavaConfig {
  readonly text: TextArchitecture
  readonly vision: ClipConfig
  readonly projectorBias: boolean
  readonly imageTokenId: number
  readonly eosTokenIds: readonly number[]
  readonly padTokenId: number | undefined
  /** Sizes (height, width) that LLaVA-NeXT fits a picture into; [] in LLaVA 1.5, which knows one size. */
  readonly pinpoints: readonly (readonly [number, number])[]
}

/** The tower that a LLaVA config means when it describes none, and what a description may leave out. */
const DEFAULT_TOWER = { hidden_size: 1024, intermediate_size: 4096, num_hidden_layers: 24, num_attention_heads: 16 }
const visionSchema = z.looseObject({
  model_type: only('clip_vision_model'),
  hidden_size: or(count, 768),
  intermediate_size: or(count, 3072),
  num_hidden_layers: or(count, 12),
  num_attention_heads: or(count, 12),
  num_channels: or(z.literal(3), 3),
  image_size: or(side, 224),
  patch_size: or(side, 32),
  hidden_act: only('quick_gelu'),
  layer_norm_eps: or(z.number().positive(), 1e-5),
})

const pinpoint = z.tuple([count, count])
const DEFAULT_PINPOINTS: [number, number][] = [
  [336, 672],
  [672, 336],
  [672, 672],
  [1008, 336],
  [336, 1008],
]

const configSchema = <T extends z.ZodType>(text: T) =>
  z.looseObject({
    model_type: z.enum(['llava', 'llava_next']),
    text_config: text,
    vision_config: or(visionSchema, visionSchema.parse({ ...DEFAULT_TOWER, patch_size: 14, image_size: 336 })),
    image_token_index: tokenId.nullish(),
    image_token_id: tokenId.nullish(),
    projector_hidden_act: only('gelu'),
    vision_feature_select_strategy: only('default'),
    vision_feature_layer: or(z.int(), -2),
    multimodal_projector_bias: or(z.boolean(), true),
    image_grid_pinpoints: or(z.array(pinpoint).min(1), DEFAULT_PINPOINTS),
    tie_word_embeddings: z.boolean().nullish(),
    pad_token_id: tokenId.nullish(),
    eos_token_id: tokenIds.nullish(),
  })
const llamaConfig = configSchema(or(llamaSchema, llamaSchema.parse({})))
const mistralConfig = configSchema(mistralSchema)
const textTypeSchema = z.looseObject({ text_config: z.looseObject({ model_type: z.string().nullish() }).nullish() })

/**
 * Read `config.json` and `generation_config.json` (optional) of a checkpoint folder.
 *
 * @throws CheckpointError when a value is missing or not what the shared layers compute.
 */
export async function loadLlavaConfig(dir: string): Promise<LlavaConfig> {
  const file = join(dir, 'config.json')
  const { text_config: type } = await readJson(file, textTypeSchema)
  const raw = await readJson(file, type?.model_type === 'mistral' ? mistralConfig : llamaConfig)
  const generation = await readJsonIfPresent(join(dir, 'generation_config.json'), generationSchema)
  const config = typed(raw, generation ?? {})
  checkDimensions(config, raw.vision_config.num_hidden_layers, file)
  return config
}

function typed(
  raw: z.output<typeof llamaConfig> | z.output<typeof mistralConfig>,
  generation: z.output<typeof generationSchema>,
): LlavaConfig {
  const { text_config: text, vision_config: vision } = raw
  const chosen = raw.vision_feature_layer
  return {
    text: {
      ...textConfig(text, (raw.tie_word_embeddings ?? false) || (text.tie_word_embeddings ?? false)),
      prefix: 'model.language_model',
      attentionBias: false,
      mropeSection: null,
    },
    vision: {
      hidden: vision.hidden_size,
      layers: vision.num_hidden_layers,
      // Hidden state 0 is what enters the first layer.
      usedLayers: chosen < 0 ? vision.num_hidden_layers + 1 + chosen : chosen,
      heads: vision.num_attention_heads,
      intermediate: vision.intermediate_size,
      patch: vision.patch_size,
      image: vision.image_size,
      layerNormEps: vision.layer_norm_eps,
    },
    projectorBias: raw.multimodal_projector_bias,
    imageTokenId: raw.image_token_index ?? raw.image_token_id ?? 32_000,
    eosTokenIds: [generation.eos_token_id ?? raw.eos_token_id ?? text.eos_token_id ?? []].flat(),
    padTokenId: generation.pad_token_id ?? text.pad_token_id ?? raw.pad_token_id ?? undefined,
    pinpoints: raw.model_type === 'llava_next' ? raw.image_grid_pinpoints : [],
  }
}

/** Relations between sizes that the layers rely on. */
function checkDimensions({ text, vision, pinpoints }: LlavaConfig, layers: number, file: string): void {
  const { hidden, heads, image, patch, usedLayers } = vision
  checkRelations(
    [
      ...textRelations(text),
      [hidden % heads === 0, `vision hidden_size ${hidden} over ${heads} heads`],
      [image % patch === 0, `an image of ${image} pixels in patches of ${patch}`],
      [usedLayers >= 0 && usedLayers <= layers, `vision_feature_layer of a tower of ${layers} layers`],
      [
        pinpoints.every(([h, w]) => h % image === 0 && w % image === 0),
        `image_grid_pinpoints that tiles of ${image} pixels do not fill`,
      ],
    ],
    file,
  )
}
