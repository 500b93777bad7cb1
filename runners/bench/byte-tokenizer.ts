/** A tokenizer of one token per byte, padded with fillers to a vocabulary, so that every sampled id decodes. */

const SPECIAL = ['<fake_token_around_image>', '<image>', '<end_of_utterance>', '<global-img>']

const TEMPLATE = `<|im_start|>{% for message in messages %}{{ message['role'] | capitalize }}\
{% if message['content'][0]['type'] == 'image' %}{{ ':' }}{% else %}{{ ': ' }}{% endif %}\
{% for part in message['content'] %}{% if part['type'] == 'text' %}{{ part['text'] }}{% else %}{{ '<image>' }}{% endif %}\
{% endfor %}<end_of_utterance>
{% endfor %}{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}`

/** The 256 characters by which byte-level tokenizers write bytes: printable ones stand for themselves. */
function byteAlphabet(): string[] {
  const printable = (b: number) => (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174
  let next = 256
  return Array.from({ length: 256 }, (_, b) => String.fromCodePoint(printable(b) ? b : next++))
}

/** `tokenizer.json`, `tokenizer_config.json` and the chat template; SmolVLM's special tokens around `imageToken`. */
export function byteTokenizerFiles(vocabSize: number, imageToken: number): Record<string, string> {
  const special = new Map([
    ['<|endoftext|>', 0],
    ['<|im_start|>', 1],
    ['<|im_end|>', 2],
    ...SPECIAL.map((token, i) => [token, imageToken - 1 + i] as const),
  ])
  const taken = new Set(special.values())
  const free = Array.from({ length: vocabSize }, (_, id) => id).filter((id) => !taken.has(id))
  const alphabet = byteAlphabet()
  const vocab = Object.fromEntries([
    ...special,
    ...free.map((id, i) => [alphabet[i] ?? `<f${id}>`, id] as [string, number]),
  ])
  const tokenizer = {
    version: '1.0',
    added_tokens: [...special].map(([content, id]) => ({ id, content, special: true, normalized: false })),
    normalizer: null,
    pre_tokenizer: { type: 'ByteLevel', add_prefix_space: false, use_regex: false },
    post_processor: null,
    decoder: { type: 'ByteLevel' },
    model: { type: 'BPE', vocab, merges: [] },
  }
  return {
    'tokenizer.json': JSON.stringify(tokenizer),
    'tokenizer_config.json': JSON.stringify({ bos_token: '<|im_start|>', pad_token: '<|im_end|>' }),
    'chat_template.jinja': TEMPLATE,
  }
}
