/** Whether a tokenizer is that of the model: checked before anything is computed with ids that mean something else. */
import { join } from 'node:path'
import { CheckpointError } from '../io/checkpoint-error.ts'
import type { Tokenizer } from '../io/tokenizer.ts'

export interface ExpectedTokens {
  /** Rows of the embedding. */
  readonly vocab: number
  /** The placeholder of a row of image features, its id in config.json, and the key that holds it there. */
  readonly image: { readonly token: string; readonly id: number; readonly key: string }
  /** Other tokens that prompts are written with. */
  readonly marks: readonly string[]
}

/** Throws a `CheckpointError` that names tokenizer.json of the folder. */
export function checkTokenizer(dir: string, tokenizer: Tokenizer, { vocab, image, marks }: ExpectedTokens): void {
  const problem = problemOf(tokenizer, vocab, [image.token, ...marks])
  const id = tokenizer.idOf(image.token)
  const other = id === image.id ? null : `${image.token} is ${id} here and ${image.key} ${image.id} in config.json`
  const reason = problem ?? other
  if (reason !== null) throw new CheckpointError(reason, { file: join(dir, 'tokenizer.json') })
}

function problemOf(tokenizer: Tokenizer, vocab: number, tokens: readonly string[]): string | null {
  if (tokenizer.vocabSize > vocab) {
    const sizes = `${tokenizer.vocabSize} tokens, but the model has ${vocab} (vocab_size in config.json)`
    return `${sizes}; use the model's own tokenizer`
  }
  const missing = tokens.find((token) => tokenizer.idOf(token) === undefined)
  return missing === undefined ? null : `no token ${missing}; is it this model's tokenizer?`
}
