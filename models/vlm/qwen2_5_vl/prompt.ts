/** The text that stands for a picture in a prompt. */
import type { TokenGrid } from './patches.ts'

export const imageToken = '<|image_pad|>'
export const visionStart = '<|vision_start|>'
export const visionEnd = '<|vision_end|>'

/** Expansion of one `<|image_pad|>` of the chat template, which writes the marks around it. */
export const imagePromptString = ({ rows, cols }: TokenGrid): string => imageToken.repeat(rows * cols)
