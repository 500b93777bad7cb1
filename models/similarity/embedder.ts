/** Text embeddings through fastembed, from a local model directory: nothing is downloaded. */
import { existsSync, readFileSync } from 'node:fs'
import { basename, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { z } from 'zod'

/**
 * Raw cosines of short answers are high even for answers that exclude each other ('red', 'blue'), so a cosine counts
 * only above `zero`, growing linearly to 1 at `one`. Measured for each model; kept in its `calibration.json`.
 */
const calibrationSchema = z
  .strictObject({ zero: z.number().min(-1).max(1), one: z.number().min(-1).max(1) })
  .refine(({ zero, one }) => zero < one, 'zero must be below one')
export type Calibration = z.infer<typeof calibrationSchema>

export interface TextEmbedder {
  readonly name: string
  readonly calibration: Calibration
  /** Unit vectors of texts; the vector of a text without a single known token is zero. */
  embed(texts: readonly string[]): Promise<readonly Float32Array[]>
}

/** The shipped static word embeddings, made by make.ts. */
export const defaultDirectory = fileURLToPath(new URL('default', import.meta.url))

/** What fastembed reads of a model directory, and our calibration. */
const FILES = [
  'model.onnx',
  'tokenizer.json',
  'config.json',
  'tokenizer_config.json',
  'special_tokens_map.json',
  'calibration.json',
]

/** fastembed pads every text to this many tokens, so it is kept as small as short answers and questions allow. */
const MAX_TOKENS = 32

/**
 * Opens a fastembed model directory (any sentence embedding whose `model.onnx` takes `input_ids`, `attention_mask`,
 * `token_type_ids` and gives `last_hidden_state` [B, T, D]; row 0 is the embedding). `run` of onnxruntime blocks its
 * thread: with the shipped model for well under a millisecond a text; put a big one into a worker.
 */
export async function openEmbedder(directory: string = defaultDirectory): Promise<TextEmbedder> {
  const missing = FILES.filter((file) => !existsSync(join(directory, file)))
  if (missing.length > 0) {
    throw new Error(
      `no embedding model in ${directory}: ${missing.join(', ')} missing; give a directory of fastembed files and ` +
        'a calibration.json {"zero": cosine of unrelated answers, "one": cosine of synonyms}',
    )
  }
  const calibration = calibrationSchema.parse(JSON.parse(readFileSync(join(directory, 'calibration.json'), 'utf8')))
  const { EmbeddingModel, FlagEmbedding } = await loadFastembed()
  const model = await FlagEmbedding.init({
    model: EmbeddingModel.CUSTOM,
    modelAbsoluteDirPath: directory,
    modelName: 'model.onnx',
    maxLength: MAX_TOKENS,
  })
  return {
    name: `fastembed:${basename(directory)}`,
    calibration,
    async embed(texts) {
      if (texts.length === 0) return []
      const vectors: Float32Array[] = []
      for await (const batch of model.embed([...texts])) for (const row of batch) vectors.push(Float32Array.from(row))
      return vectors
    },
  }
}

/** Loaded only when needed: its tokenizer is native and not built for every platform (Linux on ARM, musl). */
async function loadFastembed() {
  try {
    return await import('fastembed')
  } catch (cause) {
    throw new Error('fastembed does not load on this machine; choose the similarity `exact` instead', { cause })
  }
}
