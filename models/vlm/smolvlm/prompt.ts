/** The text that stands for a picture in a prompt. */
import type { TileGrid } from './tiles.ts'

export const imageToken = '<image>'
export const fakeToken = '<fake_token_around_image>'
export const globalToken = '<global-img>'

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
