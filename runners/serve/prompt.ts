/** Messages as what the model takes: one text, about one picture or none. */
import { invalid } from './api-error.ts'
import type { ChatMessage } from './chat-schema.ts'

export interface ChatPrompt {
  readonly text: string
  /** The address of the picture as given. */
  readonly image: string | null
}

/**
 * The text of the user's message, behind those of system messages if there are any, with an empty line between. The
 * model sees the picture first, wherever it stands. Throws ApiError for what the model cannot take: a conversation of
 * several turns, a second picture.
 */
export function promptOf(messages: readonly ChatMessage[]): ChatPrompt {
  const texts: string[] = []
  const images: string[] = []
  const last = messages.length - 1
  for (const [i, { role, content }] of messages.entries()) {
    const isSystem = role === 'system' || role === 'developer'
    if (isSystem ? i === last : role !== 'user' || i !== last)
      throw invalid(`messages.${i}.role`, 'the model answers one message of the user, behind system messages if any')
    const parts = typeof content === 'string' ? [{ type: 'text' as const, text: content }] : content
    const own: string[] = []
    for (const part of parts) {
      if (part.type === 'text') own.push(part.text)
      else if (isSystem) throw invalid(`messages.${i}.content`, 'only the message of the user may hold a picture')
      else images.push(part.image_url.url)
    }
    texts.push(own.join('\n'))
  }
  if (images.length > 1) throw invalid('messages', `the model takes one picture, not ${images.length}`)
  const text = texts.filter((t) => t.trim() !== '').join('\n\n')
  if (text === '') throw invalid('messages', 'there is no text to answer')
  return { text, image: images[0] ?? null }
}
