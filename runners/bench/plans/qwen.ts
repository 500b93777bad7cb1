/** A checkpoint with the dimensions of Qwen2.5-VL-3B. */
import type { CheckpointPlan } from '../architectures.ts'
import { bfloat16Plan } from './plan.ts'

const VOCAB = 151_936
const IMAGE_TOKEN = 151_655
const SPECIAL = {
  '<|endoftext|>': 151_643,
  '<|im_start|>': 151_644,
  '<|im_end|>': 151_645,
  '<|vision_start|>': 151_652,
  '<|vision_end|>': 151_653,
  '<|vision_pad|>': 151_654,
  '<|image_pad|>': IMAGE_TOKEN,
  '<|video_pad|>': 151_656,
}

const TEMPLATE = `{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' }}\
{% for part in message['content'] %}{% if part['type'] == 'text' %}{{ part['text'] }}\
{% else %}{{ '<|vision_start|><|image_pad|><|vision_end|>' }}{% endif %}{% endfor %}{{ '<|im_end|>\\n' }}\
{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}`

export function qwenPlan(): CheckpointPlan {
  const config = {
    model_type: 'qwen2_5_vl',
    torch_dtype: 'bfloat16',
    image_token_id: IMAGE_TOKEN,
    tie_word_embeddings: true,
    hidden_size: 2048,
    intermediate_size: 11_008,
    num_hidden_layers: 36,
    num_attention_heads: 16,
    num_key_value_heads: 2,
    vocab_size: VOCAB,
    rms_norm_eps: 1e-6,
    rope_theta: 1_000_000,
    rope_scaling: { type: 'mrope', mrope_section: [16, 24, 24] },
    vision_config: {
      hidden_size: 1280,
      out_hidden_size: 2048,
      depth: 32,
      num_heads: 16,
      intermediate_size: 3420,
      patch_size: 14,
      temporal_patch_size: 2,
      spatial_merge_size: 2,
      window_size: 112,
      fullatt_block_indexes: [7, 15, 23, 31],
    },
  }
  const image = {
    image_processor_type: 'Qwen2VLImageProcessor',
    patch_size: 14,
    temporal_patch_size: 2,
    merge_size: 2,
    min_pixels: 3136,
    max_pixels: 12_845_056,
  }
  return bfloat16Plan(config, ['preprocessor_config.json', image], IMAGE_TOKEN, {
    vocabSize: VOCAB,
    special: SPECIAL,
    config: { pad_token: '<|endoftext|>' },
    template: TEMPLATE,
  })
}
