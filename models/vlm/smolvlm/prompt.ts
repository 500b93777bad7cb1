/** The text that stands for a picture in a prompt, and what may not stand in a user's text. */
import type { TileGrid } from './tiles.ts'

export const imageToken = '<image>'
export const fakeToken = '<fake_token_around_image>'
const globalToken = '<global-img>'

/** A prompt that cannot be built, such as one whose placeholders do not match its pictures. */
export class PromptError extends Error {
  override readonly name = 'PromptError'
}

/** Expansion of one `<image>`: every tile has `imageSeqLen` image tokens, the global tile comes last. */
export function imagePromptString({ rows, cols }: TileGrid, imageSeqLen: number): string {
  const image = imageToken.repeat(imageSeqLen)
  let text = ''
  for (let row = 1; row <= rows; row++) {
    for (let col = 1; col <= cols; col++) text += `${fakeToken}<row_${row}_col_${col}>${image}`
    text += '\n'
  }
  const gap = rows > 0 ? '\n' : ''
  return `${text}${gap}${fakeToken}${globalToken}${image}${fakeToken}`
}

/** A rendered prompt with its pictures expanded; `head` ends with the last picture ('' when there is none). */
export interface ExpandedPrompt {
  readonly head: string
  readonly tail: string
}

/** Replace the n-th `<image>` by the n-th picture. Throws a `PromptError` when the numbers differ. */
export function expandImages(prompt: string, grids: readonly TileGrid[], imageSeqLen: number): ExpandedPrompt {
  const pieces = prompt.split(imageToken)
  if (pieces.length - 1 !== grids.length) {
    throw new PromptError(`the prompt has ${pieces.length - 1} ${imageToken} placeholders for ${grids.length} pictures`)
  }
  const head = grids.map((grid, i) => pieces[i]! + imagePromptString(grid, imageSeqLen)).join('')
  return { head, tail: pieces.at(-1)! }
}

/**
 * Text without the names of special tokens. What users and models write must never become an image placeholder or the
 * end of a turn; removing one name may join the parts of another, hence the loop.
 */
export function plainText(text: string, specialTokens: readonly string[]): string {
  let plain = text
  for (let before = ''; before !== plain;) {
    before = plain
    for (const token of specialTokens) plain = plain.replaceAll(token, '')
  }
  return plain
}
