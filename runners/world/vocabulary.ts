/** The tokens of the tiny model: special tokens of SmolVLM, then the words of the world, one token each. */
import { GRAMMAR_WORDS } from './grammar.ts'

/** What the tiny model is asked in each role; a Reasoner's prompt is the question itself. */
export const ROLE_PROMPTS = { questioner: 'ask', captioner: 'describe' } as const

export const SPECIAL = {
  unknown: '<|endoftext|>',
  begin: '<|im_start|>',
  pad: '<|im_end|>',
  aroundImage: '<fake_token_around_image>',
  globalImage: '<global-img>',
  image: '<image>',
  end: '<end_of_utterance>',
  // One token each, so that the names of the roles cost as little as can be.
  user: 'User:',
  assistant: 'Assistant:',
} as const

/** Image tokens of a picture: 8×8 patches, pixel shuffle by 2. */
export const IMAGE_TOKENS = 16

export const TOKENS: readonly string[] = [
  ...new Set([...Object.values(SPECIAL), '?', ...Object.values(ROLE_PROMPTS), ...GRAMMAR_WORDS]),
]

const IDS: ReadonlyMap<string, number> = new Map(TOKENS.map((token, id) => [token, id]))

/** Id of a token; throws for what is not in the vocabulary. */
export function tokenId(token: string): number {
  const id = IDS.get(token)
  if (id === undefined) throw new RangeError(`"${token}" is not a token of the tiny model`)
  return id
}

/** Ids of text made of the world's words, as the shipped tokenizer gives them (faster; a test holds them equal). */
export function encodeWords(text: string): number[] {
  return (text.match(/\w+|[^\w\s]+/g) ?? []).map(tokenId)
}

/** Level 0 of the token tree: everything up to the end of the image, equal for all prompts. */
export const IMAGE_PREFIX: readonly number[] = [
  SPECIAL.begin,
  SPECIAL.user,
  SPECIAL.aroundImage,
  SPECIAL.globalImage,
  ...Array.from({ length: IMAGE_TOKENS }, () => SPECIAL.image),
  SPECIAL.aroundImage,
].map(tokenId)

/** Level 1: a prompt after the image, up to the place where the completion starts. */
export function promptIds(text: string): number[] {
  return [...encodeWords(text), tokenId(SPECIAL.end), tokenId(SPECIAL.assistant)]
}

/** Level 2: a completion with its end token. */
export function completionIds(text: string): number[] {
  return [...encodeWords(text), tokenId(SPECIAL.end)]
}
