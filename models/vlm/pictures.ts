/** Encoded pictures and conversations as the inputs of a model. */
import type { ChatMessage } from '../io/chat-template.ts'
import { decodeImage } from '../io/image.ts'
import type { Picture, Processor } from './family.ts'

/** Everything the model takes for one conversation; pictures in order. */
export interface ModelInputs {
  readonly prompt: string
  readonly inputIds: readonly number[]
  readonly pictures: readonly Picture[]
}

/** Decode and prepare one encoded picture. Throws an `ImageError` that carries `name`. */
export async function readPicture(processor: Processor, bytes: Uint8Array, name?: string): Promise<Picture> {
  return processor.preparePicture(await decodeImage(bytes, name === undefined ? {} : { name }))
}

/** Ids and pixels of a whole conversation; `images` are the encoded pictures in order. */
export async function processConversation(
  processor: Processor,
  messages: readonly ChatMessage[],
  images: readonly Uint8Array[],
): Promise<ModelInputs> {
  const pictures = await Promise.all(images.map((bytes) => readPicture(processor, bytes)))
  const { prompt, prefix, suffix } = processor.splitMessages(
    messages,
    pictures.map((p) => p.layout),
  )
  return { prompt, inputIds: [...prefix, ...suffix], pictures }
}
