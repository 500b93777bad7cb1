/** Encoded pictures and conversations as the inputs of a model. */
import type { ChatMessage } from '../io/chat-template.ts'
import { decodeImage, ImageError } from '../io/image.ts'
import { reasonOf } from '../io/json-file.ts'
import type { Picture, Processor } from './family.ts'

/** Everything the model takes for one conversation; pictures in order. */
export interface ModelInputs {
  readonly prompt: string
  readonly inputIds: readonly number[]
  readonly pictures: readonly Picture[]
}

/** Decode and prepare one encoded picture. Throws an `ImageError` that carries `name`. */
export async function readPicture(processor: Processor, bytes: Uint8Array, name?: string): Promise<Picture> {
  const image = await decodeImage(bytes, name === undefined ? {} : { name })
  try {
    return processor.preparePicture(image)
  } catch (cause) {
    throw new ImageError(name ?? 'of unknown name', reasonOf(cause), { cause })
  }
}

/** Ids and pixels of a whole conversation; `images` are the encoded pictures in order. */
export async function processConversation(
  processor: Processor,
  messages: readonly ChatMessage[],
  images: readonly Uint8Array[],
): Promise<ModelInputs> {
  const pictures = await Promise.all(images.map((bytes) => readPicture(processor, bytes)))
  const { prompt, prefix, suffix } = processor.prompts.splitMessages(
    messages,
    pictures.map((p) => p.layout),
  )
  return { prompt, inputIds: [...prefix, ...suffix], pictures }
}
