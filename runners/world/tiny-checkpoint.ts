/** The files of the tiny checkpoint but its weights: configuration and tokenizer in the layout of SmolVLM on the hub. */
import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { IMAGE_SIZE } from './draw.ts'
import { IMAGE_TOKENS, SPECIAL, tokenId, TOKENS } from './vocabulary.ts'

const MAX_POSITIONS = 256
const ids = {
  bos_token_id: tokenId(SPECIAL.begin),
  eos_token_id: tokenId(SPECIAL.end),
  pad_token_id: tokenId(SPECIAL.pad),
}

const config = {
  architectures: ['SmolVLMForConditionalGeneration'],
  dtype: 'float32',
  ...ids,
  image_token_id: tokenId(SPECIAL.image),
  model_type: 'smolvlm',
  scale_factor: 2,
  text_config: {
    attention_bias: false,
    attention_dropout: 0,
    ...ids,
    head_dim: 32,
    hidden_act: 'silu',
    hidden_size: 128,
    initializer_range: 0.02,
    intermediate_size: 384,
    max_position_embeddings: MAX_POSITIONS,
    mlp_bias: false,
    model_type: 'llama',
    num_attention_heads: 4,
    num_hidden_layers: 4,
    num_key_value_heads: 2,
    rms_norm_eps: 1e-5,
    rope_parameters: { rope_theta: 10000, rope_type: 'default' },
    rope_theta: 10000,
    tie_word_embeddings: true,
    use_cache: true,
    vocab_size: TOKENS.length,
  },
  tie_word_embeddings: true,
  use_cache: true,
  vision_config: {
    attention_dropout: 0,
    hidden_act: 'gelu_pytorch_tanh',
    hidden_size: 96,
    image_size: IMAGE_SIZE,
    initializer_range: 0.02,
    intermediate_size: 384,
    layer_norm_eps: 1e-6,
    model_type: 'smolvlm_vision',
    num_attention_heads: 3,
    num_channels: 3,
    num_hidden_layers: 3,
    patch_size: 8,
  },
}

const imageProcessor = {
  do_convert_rgb: true,
  do_image_splitting: false,
  do_normalize: true,
  do_pad: true,
  do_rescale: true,
  do_resize: true,
  image_mean: [0.5, 0.5, 0.5],
  image_processor_type: 'SmolVLMImageProcessor',
  image_std: [0.5, 0.5, 0.5],
  max_image_size: { longest_edge: IMAGE_SIZE },
  resample: 1,
  rescale_factor: 1 / 255,
  size: { longest_edge: IMAGE_SIZE },
}

/** Not used here, but transformers loads no SmolVLM processor without one. */
const videoProcessor = {
  do_convert_rgb: true,
  do_normalize: true,
  do_pad: true,
  do_rescale: true,
  do_resize: true,
  do_sample_frames: false,
  image_mean: imageProcessor.image_mean,
  image_std: imageProcessor.image_std,
  max_image_size: imageProcessor.max_image_size,
  resample: imageProcessor.resample,
  rescale_factor: imageProcessor.rescale_factor,
  size: imageProcessor.size,
  video_processor_type: 'SmolVLMVideoProcessor',
}

const tokenizerConfig = {
  bos_token: SPECIAL.begin,
  clean_up_tokenization_spaces: false,
  eos_token: SPECIAL.end,
  model_max_length: MAX_POSITIONS,
  pad_token: SPECIAL.pad,
  padding_side: 'left',
  processor_class: 'SmolVLMProcessor',
  tokenizer_class: 'PreTrainedTokenizerFast',
  unk_token: SPECIAL.unknown,
}

const tokenizer = {
  version: '1.0',
  truncation: null,
  padding: null,
  added_tokens: Object.values(SPECIAL).map((content) => ({
    id: tokenId(content),
    content,
    single_word: false,
    lstrip: false,
    rstrip: false,
    normalized: false,
    special: true,
  })),
  normalizer: { type: 'Lowercase' },
  pre_tokenizer: { type: 'Whitespace' },
  post_processor: null,
  // The decoder of WordPiece joins words with spaces and draws punctuation to the word before it.
  decoder: { type: 'WordPiece', prefix: '##', cleanup: true },
  model: {
    type: 'WordLevel',
    vocab: Object.fromEntries(TOKENS.map((token, id) => [token, id])),
    unk_token: SPECIAL.unknown,
  },
}

/** The template of SmolVLM, which also takes plain text as content. White space costs no tokens here. */
const CHAT_TEMPLATE = `<|im_start|>{% for message in messages -%}
{{ message.role | capitalize }}:
{%- if message.content is string %} {{ message.content }}
{%- else -%}
{%- if message.content[0].type != 'image' %}{{ ' ' }}{% endif -%}
{%- for part in message.content -%}
{%- if part.type == 'text' %}{{ part.text }}{% elif part.type == 'image' %}{{ '<image>' }}{% endif -%}
{%- endfor -%}
{%- endif -%}
{{ '<end_of_utterance>\\n' }}
{%- endfor -%}
{%- if add_generation_prompt %}{{ 'Assistant:' }}{% endif -%}
`

/** Name → text of every file. */
export function tinyCheckpointFiles(): Readonly<Record<string, string>> {
  const json = (value: unknown): string => JSON.stringify(value, null, 2) + '\n'
  return {
    'config.json': json(config),
    'generation_config.json': json(ids),
    'processor_config.json': json({
      image_processor: imageProcessor,
      image_seq_len: IMAGE_TOKENS,
      processor_class: 'SmolVLMProcessor',
      video_processor: videoProcessor,
    }),
    'tokenizer.json': json(tokenizer),
    'tokenizer_config.json': json(tokenizerConfig),
    'chat_template.jinja': CHAT_TEMPLATE,
    // Not of the hub: the preset of visplay that suits this model, and the checkpoints that come of it.
    'visplay.json': json({ preset: 'tiny' }),
  }
}

/** Writes them; weights go beside them as `model.safetensors`. */
export async function writeTinyCheckpointFiles(dir: string): Promise<void> {
  await mkdir(dir, { recursive: true })
  await Promise.all(Object.entries(tinyCheckpointFiles()).map(([name, text]) => writeFile(join(dir, name), text)))
}
