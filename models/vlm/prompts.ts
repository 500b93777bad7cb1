/** Rendered chats with expanded pictures as token ids, cut behind the last picture. */
import { LRUCache } from 'lru-cache'
import { type ChatMessage, type ChatTemplate, renderChat } from '../io/chat-template.ts'
import type { Tokenizer } from '../io/tokenizer.ts'
import type { PictureLayout, PromptSplitter, SplitPrompt } from './family.ts'

/** A prompt that cannot be built, such as one whose placeholders do not match its pictures. */
export class PromptError extends Error {
  override readonly name = 'PromptError'
}

/** How a family writes pictures. */
export interface PictureText {
  /** What the chat template prints for a picture. */
  readonly placeholder: string
  /** What stands there instead in the prompt of the model. */
  expand(layout: PictureLayout): string
  /** The special token that every expansion ends with. */
  readonly last: string
}

/** Made once for a checkpoint; keeps what it encoded. */
export class Prompts implements PromptSplitter {
  /** Ids of the few distinct prompt heads (one per picture layout), so that only the text is encoded each time. */
  readonly #heads = new Map<string, readonly number[]>()
  /** Prompts seen: a step asks for each several times, to sample and to train. */
  readonly #prompts = new LRUCache<string, SplitPrompt>({ max: 4096 })

  constructor(
    private readonly tokenizer: Tokenizer,
    private readonly template: ChatTemplate,
    private readonly picture: PictureText,
  ) {}

  splitPrompt(text: string, layout: PictureLayout | null): SplitPrompt {
    const key = `${layout ? `${layout.features}:${layout.rows}x${layout.cols}` : 'text'} ${text}`
    let split = this.#prompts.get(key)
    if (!split) {
      split = this.#splitTurn(text, layout)
      this.#prompts.set(key, split)
    }
    return split
  }

  #splitTurn(text: string, layout: PictureLayout | null): SplitPrompt {
    const part = { type: 'text', text: plainText(text, this.tokenizer.specialTokens) } as const
    const content = layout ? [{ type: 'image' } as const, part] : [part]
    return this.splitMessages([{ role: 'user', content }], layout ? [layout] : [])
  }

  /** Throws a `PromptError` when placeholders and pictures differ in number. */
  splitMessages(messages: readonly ChatMessage[], layouts: readonly PictureLayout[]): SplitPrompt {
    const prompt = renderChat(this.template, messages, { addGenerationPrompt: true, variables: this.#variables() })
    const { head, tail } = expandPictures(prompt, layouts, this.picture)
    if (head === '') {
      const ids = this.#encodeStart(tail)
      return { prompt, prefix: ids.slice(0, 1), suffix: ids.slice(1) }
    }
    return { prompt, prefix: this.#encodeHead(head), suffix: this.#encodeTail(tail) }
  }

  #variables(): Record<string, string> {
    const { bosToken, eosToken } = this.tokenizer
    return { ...(bosToken && { bos_token: bosToken }), ...(eosToken && { eos_token: eosToken }) }
  }

  /** The begin token is added unless the template already wrote it, as transformers' `apply_chat_template` decides. */
  #encodeStart(text: string): number[] {
    const { bosToken } = this.tokenizer
    return this.tokenizer.encode(text, { addSpecialTokens: !(bosToken && text.startsWith(bosToken)) })
  }

  #encodeHead(head: string): readonly number[] {
    let ids = this.#heads.get(head)
    if (!ids) {
      ids = this.#encodeStart(head)
      if (ids.at(-1) !== this.tokenizer.idOf(this.picture.last)) {
        throw new PromptError('the tokenizer adds tokens behind the picture; prompts cannot be shared')
      }
      if (this.#heads.size >= 64) this.#heads.clear()
      this.#heads.set(head, ids)
    }
    return ids
  }

  /** Text behind a picture is encoded behind its last token: a tokenizer may treat the start of a text differently. */
  #encodeTail(tail: string): number[] {
    const { last } = this.picture
    const ids = this.tokenizer.encode(last + tail, { addSpecialTokens: false })
    if (ids[0] !== this.tokenizer.idOf(last)) throw new PromptError('the tokenizer merges text into special tokens')
    return ids.slice(1)
  }
}

/** `head` ends with the last picture ('' when there is none). */
function expandPictures(
  prompt: string,
  layouts: readonly PictureLayout[],
  { placeholder, expand }: PictureText,
): { head: string; tail: string } {
  const pieces = prompt.split(placeholder)
  if (pieces.length - 1 !== layouts.length) {
    const found = `${pieces.length - 1} ${placeholder} placeholders`
    throw new PromptError(`the prompt has ${found} for ${layouts.length} pictures`)
  }
  const head = layouts.map((layout, i) => pieces[i]! + expand(layout)).join('')
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
