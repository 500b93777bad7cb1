/** Which words the embedding knows. */
import type { WordNet } from './wordnet.ts'

/** Lexicographer files of things that can be seen: animal, artifact, body, food, object, plant, shape, substance. */
const VISIBLE_FILES = new Set([5, 6, 8, 13, 17, 20, 25, 27])
/** Frequency ranks up to which a word is taken: any word of WordNet, a function word, the name of a visible thing. */
const COMMON = 9_000
const FUNCTION_WORDS = 400
const VISIBLE = 30_000
const SIZE = 10_000

/** Colours and shapes are what the shipped world is made of: known at any rank. */
const ALWAYS = `red orange yellow green blue purple pink brown black white gray grey teal cyan magenta turquoise violet
  indigo maroon crimson scarlet beige tan gold silver navy lime olive lavender circle square rectangle triangle star
  cross ring ellipse oval diamond pentagon hexagon octagon heart arrow crescent cube sphere cylinder cone pyramid
  striped dotted checkered plaid`.split(/\s+/)

/** The word of each number from 0 on; answers are normalised to digits. */
export const NUMBERS = `zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen
  sixteen seventeen eighteen nineteen twenty`.split(/\s+/)

/** The numbers, colours and shapes, then words by falling frequency, `SIZE` in all; `ranked` is sorted by frequency. */
export function chooseWords(ranked: readonly string[], wordnet: WordNet): string[] {
  const known = new Set(ranked)
  const always = [...NUMBERS, ...ALWAYS].filter((word) => known.has(word))
  const common = ranked.filter((word, rank) => {
    if (!/^[a-z]+$/.test(word)) return false
    if (rank < FUNCTION_WORDS) return true
    if (singulars(word).some((form) => wordnet.has(form)) && rank < COMMON) return true
    const file = singulars(word)
      .map((form) => wordnet.nounFile(form))
      .find((found) => found !== null)
    return rank < VISIBLE && file !== undefined && VISIBLE_FILES.has(file!)
  })
  return [...new Set([...always, ...common])].slice(0, SIZE)
}

/** The word itself and what it may be the plural of. */
export function singulars(word: string): string[] {
  return [word, word.replace(/s$/, ''), word.replace(/es$/, ''), word.replace(/ies$/, 'y')].filter(
    (form, i, forms) => form.length > 2 && forms.indexOf(form) === i,
  )
}
