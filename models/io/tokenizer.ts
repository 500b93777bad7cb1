/** Text ↔ token ids with the tokenizer of a Hugging Face checkpoint folder (`tokenizer.json`). */
import { join } from 'node:path'
import { TextDecoder } from 'node:util'
import { Tokenizer as HuggingFaceTokenizer } from '@huggingface/tokenizers'
import { z } from 'zod'
import { CheckpointError, printable } from './checkpoint-error.ts'
import { readJson, readJsonIfPresent, reasonOf } from './json-file.ts'
import { withinTime } from './time-limit.ts'

/** Time for one text, thousands of times what a usual one needs. */
const MOST_MS = 2000
/** No published vocabulary has a hundredth. */
const MOST_IDS = 2 ** 24
const REMEDY = 'use the tokenizer that the model was published with'

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
    .array(
      z.looseObject({ id: z.int().nonnegative().max(MOST_IDS), content: z.string(), special: z.boolean().optional() }),
    )
    .optional(),
})

export interface Tokenizer {
  /** `addSpecialTokens` (default true) runs the post-processor, which may add begin and end tokens. */
  encode(text: string, options?: { addSpecialTokens?: boolean }): number[]
  /** Bytes that are no whole UTF-8 character become U+FFFD. */
  decode(ids: readonly number[], options: { skipSpecialTokens: boolean }): string
  idOf(token: string): number | undefined
  tokenOf(id: number): string | undefined
  /** Number of ids, added tokens included: one more than the largest. */
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
  const unusable = (cause: unknown) =>
    cause instanceof CheckpointError
      ? cause
      : new CheckpointError(`not a usable tokenizer (${reasonOf(cause)}); ${REMEDY}`, { file, cause })
  const guard: Guard = (work) => {
    try {
      return withinTime(MOST_MS, work)
    } catch (cause) {
      throw unusable(cause)
    }
  }
  // Decoding is frequent and simple, unless it has an expression of the file's own.
  const quick: Guard = holdsRegex(model['decoder']) ? guard : (work) => work()
  const guards: Guards = { encode: guard, decode: quick }
  guard(() => checkIds(model.model['vocab']))
  const tokenizer = guard(() => new FileTokenizer(new HuggingFaceTokenizer(model, config), config, special, guards))
  // What is broken inside shows when it is used.
  guard(() => tokenizer.decode(tokenizer.encode(PROBE), { skipSpecialTokens: false }))
  return tokenizer
}

/** Runs a part of the library; whatever it throws becomes a CheckpointError that names the file. */
type Guard = <T>(work: () => T) => T

interface Guards {
  readonly encode: Guard
  readonly decode: Guard
}

const PROBE = 'What is in the picture? 2 naïve cats, 图像 🙂\n'

/** Whether a part of `tokenizer.json`, however deep, brings an expression of its own: `{"Regex": "…"}`. */
function holdsRegex(part: unknown): boolean {
  const open = [part]
  while (open.length > 0) {
    const value = open.pop()
    if (typeof value !== 'object' || value === null) continue
    if ('Regex' in value) return true
    for (const inner of Object.values(value)) open.push(inner)
  }
  return false
}

class FileTokenizer implements Tokenizer {
  readonly vocabSize: number
  readonly bosToken: string | undefined
  readonly eosToken: string | undefined
  readonly padToken: string | undefined
  readonly specialTokens: readonly string[]
  readonly #tokenizer: HuggingFaceTokenizer
  readonly #cleanUp: boolean
  readonly #guards: Guards

  constructor(tokenizer: HuggingFaceTokenizer, config: TokenizerConfig, special: readonly string[], guards: Guards) {
    this.#tokenizer = tokenizer
    decodeRunsOfBytes(tokenizer.decoder as LibraryDecoder | null)
    this.#cleanUp = config.clean_up_tokenization_spaces ?? false
    this.#guards = guards
    this.vocabSize = 1 + largestId(tokenizer.get_vocab(true))
    this.bosToken = config.bos_token ?? undefined
    this.eosToken = config.eos_token ?? undefined
    this.padToken = config.pad_token ?? undefined
    this.specialTokens = special
  }

  encode(text: string, { addSpecialTokens = true }: { addSpecialTokens?: boolean } = {}): number[] {
    return this.#guards.encode(() => {
      const { ids } = this.#tokenizer.encode(text, { add_special_tokens: addSpecialTokens })
      const known = (id: number | undefined) => id !== undefined && id >= 0 && id < this.vocabSize
      if (!ids.every(known)) throw new RangeError('a piece of text has no id')
      return ids
    })
  }

  decode(ids: readonly number[], { skipSpecialTokens }: { skipSpecialTokens: boolean }): string {
    // The library rejects an empty list.
    if (ids.length === 0) return ''
    const options = { skip_special_tokens: skipSpecialTokens, clean_up_tokenization_spaces: this.#cleanUp }
    return this.#guards.decode(() => this.#tokenizer.decode([...ids], options))
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

/** A vocabulary of word pieces is an object of ids; another kind of model has a list. */
function checkIds(vocabulary: unknown): void {
  if (typeof vocabulary !== 'object' || vocabulary === null || Array.isArray(vocabulary)) return
  for (const [token, id] of Object.entries(vocabulary as Readonly<Record<string, unknown>>)) {
    const fine = typeof id === 'number' && Number.isInteger(id) && id >= 0 && id <= MOST_IDS
    if (!fine) throw new RangeError(`the id of "${printable(token, 40)}" is ${printable(String(id), 40)}`)
  }
}

function largestId(vocabulary: ReadonlyMap<string, number>): number {
  let largest = -1
  for (const id of vocabulary.values()) largest = Math.max(largest, id)
  if (!(largest >= 0 && largest <= MOST_IDS)) throw new RangeError(`the largest id is ${largest}`)
  return largest
}
