/** The files that plans of checkpoints have in common. */
import type { CheckpointPlan } from '../architectures.ts'
import { type ByteTokenizer, byteTokenizerFiles } from '../byte-tokenizer.ts'

/** A token that can never be sampled ends an answer, so that every completion has the length asked for. */
export const neverEnding = (imageToken: number): Record<string, string> => ({
  'generation_config.json': JSON.stringify({ eos_token_id: imageToken }),
})

/** @param settings file and content of the settings of the picture processor. */
export function bfloat16Plan(
  config: object,
  settings: readonly [file: string, content: object],
  imageToken: number,
  tokenizer: ByteTokenizer,
): CheckpointPlan {
  const files = {
    'config.json': JSON.stringify(config),
    ...neverEnding(imageToken),
    [settings[0]]: JSON.stringify(settings[1]),
    ...byteTokenizerFiles(tokenizer),
  }
  return { files, dtype: 'bfloat16' }
}
