/** Models of the benchmark: real dimensions, random weights (speed does not depend on their values). */
import { tinyCheckpointFiles } from '../world/tiny-checkpoint.ts'
import { byteTokenizerFiles } from './byte-tokenizer.ts'

export const ARCHITECTURES = ['tiny', 'smolvlm-256m', 'smolvlm-500m'] as const
export type Architecture = (typeof ARCHITECTURES)[number]

/** Checkpoint files but the weights, and how the weights are stored. */
export interface CheckpointPlan {
  readonly files: Readonly<Record<string, string>>
  readonly dtype: 'float32' | 'bfloat16'
}

const IMAGE_TOKEN = 49_190
const VOCAB = 49_280
const VISION = {
  model_type: 'smolvlm_vision',
  hidden_size: 768,
  intermediate_size: 3072,
  num_hidden_layers: 12,
  num_attention_heads: 12,
  image_size: 512,
  patch_size: 16,
}
const TEXT = {
  'smolvlm-256m': { hidden_size: 576, intermediate_size: 1536, num_hidden_layers: 30, heads: 9, kv: 3 },
  'smolvlm-500m': { hidden_size: 960, intermediate_size: 2560, num_hidden_layers: 32, heads: 15, kv: 5 },
}

/** The checkpoint of an architecture for pictures of `pixels` a side (the tiny model has one size). */
export function checkpointPlan(architecture: Architecture, pixels: number): CheckpointPlan {
  return architecture === 'tiny' ? tinyPlan() : smolVlmPlan(TEXT[architecture], pixels)
}

/**
 * The end token is one that can never be sampled, so that every completion has the length asked for.
 */
function tinyPlan(): CheckpointPlan {
  const files = tinyCheckpointFiles()
  const { image_token_id: image } = JSON.parse(files['config.json']!) as { image_token_id: number }
  return { files: { ...files, 'generation_config.json': JSON.stringify({ eos_token_id: image }) }, dtype: 'float32' }
}

function smolVlmPlan({ heads, kv, ...text }: (typeof TEXT)['smolvlm-256m'], pixels: number): CheckpointPlan {
  const scale = 4
  const config = {
    model_type: 'smolvlm',
    dtype: 'bfloat16',
    scale_factor: scale,
    image_token_id: IMAGE_TOKEN,
    tie_word_embeddings: false,
    vision_config: VISION,
    text_config: {
      model_type: 'llama',
      ...text,
      num_attention_heads: heads,
      num_key_value_heads: kv,
      head_dim: 64,
      vocab_size: VOCAB,
      rope_theta: 100_000,
      rms_norm_eps: 1e-5,
      max_position_embeddings: 8192,
      tie_word_embeddings: false,
    },
  }
  const processor = {
    image_seq_len: (pixels / VISION.patch_size / scale) ** 2,
    image_processor: {
      do_image_splitting: false,
      size: { longest_edge: pixels },
      max_image_size: { longest_edge: pixels },
    },
  }
  const files = {
    'config.json': JSON.stringify(config),
    'generation_config.json': JSON.stringify({ eos_token_id: IMAGE_TOKEN }),
    'processor_config.json': JSON.stringify(processor),
    ...byteTokenizerFiles(VOCAB, IMAGE_TOKEN),
  }
  return { files, dtype: 'bfloat16' }
}
