/** Checkpoints with the dimensions of SmolVLM. */
import type { CheckpointPlan } from '../architectures.ts'
import { bfloat16Plan } from './plan.ts'

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
const SPECIAL = {
  '<|endoftext|>': 0,
  '<|im_start|>': 1,
  '<|im_end|>': 2,
  '<fake_token_around_image>': IMAGE_TOKEN - 1,
  '<image>': IMAGE_TOKEN,
  '<end_of_utterance>': IMAGE_TOKEN + 1,
  '<global-img>': IMAGE_TOKEN + 2,
}

const TEMPLATE = `<|im_start|>{% for message in messages %}{{ message['role'] | capitalize }}\
{% if message['content'][0]['type'] == 'image' %}{{ ':' }}{% else %}{{ ': ' }}{% endif %}\
{% for part in message['content'] %}{% if part['type'] == 'text' %}{{ part['text'] }}{% else %}{{ '<image>' }}{% endif %}\
{% endfor %}<end_of_utterance>
{% endfor %}{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}`

/** A picture is one tile of `pixels` a side. */
export function smolVlmPlan(size: keyof typeof TEXT, pixels: number): CheckpointPlan {
  const { heads, kv, ...text } = TEXT[size]
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
  return bfloat16Plan(config, ['processor_config.json', processor], IMAGE_TOKEN, {
    vocabSize: VOCAB,
    special: SPECIAL,
    config: { bos_token: '<|im_start|>', pad_token: '<|im_end|>' },
    template: TEMPLATE,
  })
}
