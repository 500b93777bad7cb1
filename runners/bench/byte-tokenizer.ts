/** A tokenizer of one token per byte, padded with fillers to a vocabulary, so that every sampled id decodes. */

/** Of a model: its vocabulary, special tokens with their ids, and chat template. */
export interface ByteTokenizer {
  readonly vocabSize: number
  readonly special: Readonly<Record<string, number>>
  /** `tokenizer_config.json`. */
  readonly config: Readonly<Record<string, string>>
  readonly template: string
}

/** The 256 characters by which byte-level tokenizers write bytes: printable ones stand for themselves. */
function byteAlphabet(): string[] {
  const printable = (b: number) => (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174
  let next = 256
  return Array.from({ length: 256 }, (_, b) => String.fromCodePoint(printable(b) ? b : next++))
}

/** `tokenizer.json`, `tokenizer_config.json` and the chat template. */
export function byteTokenizerFiles({ vocabSize, special, config, template }: ByteTokenizer): Record<string, string> {
  const taken = new Set(Object.values(special))
  const free = Array.from({ length: vocabSize }, (_, id) => id).filter((id) => !taken.has(id))
  const alphabet = byteAlphabet()
  const vocab = Object.fromEntries([
    ...Object.entries(special),
    ...free.map((id, i) => [alphabet[i] ?? `<f${id}>`, id] as [string, number]),
  ])
  const tokenizer = {
    version: '1.0',
    added_tokens: Object.entries(special).map(([content, id]) => ({ id, content, special: true, normalized: false })),
    normalizer: null,
    pre_tokenizer: { type: 'ByteLevel', add_prefix_space: false, use_regex: false },
    post_processor: null,
    decoder: { type: 'ByteLevel' },
    model: { type: 'BPE', vocab, merges: [] },
  }
  return {
    'tokenizer.json': JSON.stringify(tokenizer),
    'tokenizer_config.json': JSON.stringify(config),
    'chat_template.jinja': template,
  }
}
