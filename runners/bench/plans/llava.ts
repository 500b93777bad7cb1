/** A checkpoint with the dimensions of LLaVA 1.5 7B. */
import type { CheckpointPlan } from '../architectures.ts'
import { bfloat16Plan } from './plan.ts'

const VOCAB = 32_064
const IMAGE_TOKEN = 32_000
const SPECIAL = { '<unk>': 0, '<s>': 1, '</s>': 2, '<image>': IMAGE_TOKEN, '<pad>': 32_001 }
const SIDE = 336

const TEMPLATE = `{% for message in messages %}{{ message['role'] | upper }}: \
{% for part in message['content'] %}{% if part['type'] == 'text' %}{{ part['text'] }}{% else %}{{ '<image>\\n' }}{% endif %}\
{% endfor %} {% endfor %}{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}`

export function llavaPlan(): CheckpointPlan {
  const config = {
    model_type: 'llava',
    torch_dtype: 'bfloat16',
    image_token_index: IMAGE_TOKEN,
    vision_feature_layer: -2,
    vision_feature_select_strategy: 'default',
    projector_hidden_act: 'gelu',
    tie_word_embeddings: false,
    text_config: {
      model_type: 'llama',
      hidden_size: 4096,
      intermediate_size: 11_008,
      num_hidden_layers: 32,
      num_attention_heads: 32,
      num_key_value_heads: 32,
      vocab_size: VOCAB,
      rms_norm_eps: 1e-5,
      max_position_embeddings: 4096,
    },
    vision_config: {
      model_type: 'clip_vision_model',
      hidden_size: 1024,
      intermediate_size: 4096,
      num_hidden_layers: 24,
      num_attention_heads: 16,
      image_size: SIDE,
      patch_size: 14,
    },
  }
  const image = {
    image_processor_type: 'CLIPImageProcessor',
    size: { shortest_edge: SIDE },
    crop_size: { height: SIDE, width: SIDE },
  }
  return bfloat16Plan(config, ['preprocessor_config.json', image], IMAGE_TOKEN, {
    vocabSize: VOCAB,
    special: SPECIAL,
    config: { bos_token: '<s>', pad_token: '<pad>' },
    template: TEMPLATE,
  })
}
