/** The text that stands for a picture in a prompt. */
import type { PictureText } from '../prompts.ts'

export const imageToken = '<|image_pad|>'
export const visionStart = '<|vision_start|>'
export const visionEnd = '<|vision_end|>'
/** Placeholders and marks that a model must not write: of pictures, and of videos, which nothing here reads. */
export const marks = [imageToken, visionStart, visionEnd, '<|vision_pad|>', '<|video_pad|>']

/** The marks around a picture are part of the chat template. */
export const pictureText: PictureText = {
  placeholder: `${visionStart}${imageToken}${visionEnd}`,
  expand: ({ features }) => `${visionStart}${imageToken.repeat(features)}${visionEnd}`,
  last: visionEnd,
}
