/** Text ↔ token ids with the tokenizer of a Hugging Face checkpoint folder (`tokenizer.json`). */
import { join } from 'node:path'
import { TextDecoder } from 'node:util'
import { Tokenizer as HuggingFaceTokenizer } from '@huggingface/tokenizers'
import { z } from 'zod'
import { CheckpointError } from './checkpoint-error.ts'
import { readJson, readJsonIfPresent, reasonOf } from './json-file.ts'

const tokenSchema = z
  .union([z.string(), z.looseObject({ content: z.string() })])
  .nullish()
  .transform((token) => (typeof token === 'object' ? token?.content : token))
const configSchema = z.looseObject({
  bos_token: tokenSchema,
  eos_token: tokenSchema,
  pad_token: tokenSchema,
  clean_up_tokenization_spaces: z.boolean().nullish(),
})
type TokenizerConfig = z.output<typeof configSchema>
const tokenizerSchema = z.looseObject({
  model: z.looseObject({}),
  added_tokens: z
    .array(z.looseObject({ id: z.int(), content: z.string(), special: z.boolean().optional() }))
    .optional(),
})

export interface Tokenizer {
  /** `addSpecialTokens` (default true) runs the post-processor, which may add begin and end tokens. */
  encode(text: string, options?: { addSpecialTokens?: boolean }): number[]
  /** Bytes that are no whole UTF-8 character become U+FFFD. */
  decode(ids: readonly number[], options: { skipSpecialTokens: boolean }): string
  idOf(token: string): number | undefined
  tokenOf(id: number): string | undefined
  /** Number of ids, added tokens included. */
  readonly vocabSize: number
  readonly bosToken: string | undefined
  readonly eosToken: string | undefined
  readonly padToken: string | undefined
  /** Texts that encode to one reserved id; they must not come from users or models. */
  readonly specialTokens: readonly string[]
}

/** Load `tokenizer.json`, `tokenizer_config.json` and, in the hub layout, `special_tokens_map.json`. */
export async function loadTokenizer(dir: string): Promise<Tokenizer> {
  const file = join(dir, 'tokenizer.json')
  const model = await readJson(file, tokenizerSchema)
  const map = await readJsonIfPresent(join(dir, 'special_tokens_map.json'), configSchema)
  const own = await readJsonIfPresent(join(dir, 'tokenizer_config.json'), configSchema)
  const names = {
    bos_token: own?.bos_token ?? map?.bos_token,
    eos_token: own?.eos_token ?? map?.eos_token,
    pad_token: own?.pad_token ?? map?.pad_token,
  }
  const config = { ...own, ...names }
  const special = (model.added_tokens ?? []).filter((token) => token.special).map((token) => token.content)
  try {
    return new FileTokenizer(new HuggingFaceTokenizer(model, config), config, special)
  } catch (cause) {
    throw new CheckpointError(`not a usable tokenizer (${reasonOf(cause)})`, { file, cause })
  }
}

class FileTokenizer implements Tokenizer {
  readonly vocabSize: number
  readonly bosToken: string | undefined
  readonly eosToken: string | undefined
  readonly padToken: string | undefined
  readonly specialTokens: readonly string[]
  readonly #tokenizer: HuggingFaceTokenizer
  readonly #cleanUp: boolean

  constructor(tokenizer: HuggingFaceTokenizer, config: TokenizerConfig, special: readonly string[]) {
    this.#tokenizer = tokenizer
    decodeRunsOfBytes(tokenizer.decoder as LibraryDecoder | null)
    this.#cleanUp = config.clean_up_tokenization_spaces ?? false
    this.vocabSize = tokenizer.get_vocab(true).size
    this.bosToken = config.bos_token ?? undefined
    this.eosToken = config.eos_token ?? undefined
    this.padToken = config.pad_token ?? undefined
    this.specialTokens = special
  }

  encode(text: string, { addSpecialTokens = true }: { addSpecialTokens?: boolean } = {}): number[] {
    return this.#tokenizer.encode(text, { add_special_tokens: addSpecialTokens }).ids
  }

  decode(ids: readonly number[], { skipSpecialTokens }: { skipSpecialTokens: boolean }): string {
    // The library rejects an empty list.
    if (ids.length === 0) return ''
    const options = { skip_special_tokens: skipSpecialTokens, clean_up_tokenization_spaces: this.#cleanUp }
    return this.#tokenizer.decode([...ids], options)
  }

  idOf(token: string): number | undefined {
    return this.#tokenizer.token_to_id(token)
  }

  tokenOf(id: number): string | undefined {
    return this.#tokenizer.id_to_token(id)
  }
}

/**
 * Bytes of a tokenizer with byte fallback: a run of them is text as a whole or, as in the tokenizers that made the
 * checkpoint, one U+FFFD for each byte.
 */
class RunDecoder extends TextDecoder {
  readonly #strict = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

  override decode(run: Uint8Array): string {
    try {
      return this.#strict.decode(run)
    } catch {
      return '\uFFFD'.repeat(run.length)
    }
  }
}

/** What is used of the library's decoders. */
interface LibraryDecoder {
  readonly config: { readonly type: string }
  /** Of a sequence. */
  readonly decoders?: readonly LibraryDecoder[]
  text_decoder?: TextDecoder
}

/** The library replaces single characters instead. */
function decodeRunsOfBytes(decoder: LibraryDecoder | null): void {
  for (const one of decoder?.decoders ?? []) decodeRunsOfBytes(one)
  if (decoder?.config.type === 'ByteFallback') decoder.text_decoder = new RunDecoder()
}
