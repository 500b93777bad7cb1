/** Text embeddings through fastembed: the shipped model, a directory, or a model that fastembed fetches by name. */
import { existsSync, readFileSync } from 'node:fs'
import { mkdir, rm } from 'node:fs/promises'
import { homedir } from 'node:os'
import { basename, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { EmbeddingModel, FlagEmbedding } from 'fastembed'
import { z } from 'zod'
import { calibrate, type Calibration } from './calibrate.ts'
import { type EmbeddingName, isEmbeddingName } from './names.ts'

const calibrationSchema = z
  .strictObject({ zero: z.number().min(-1).max(1), one: z.number().min(-1).max(1) })
  .refine(({ zero, one }) => zero < one, 'zero must be below one')

export interface TextEmbedder {
  readonly name: string
  readonly calibration: Calibration
  /** Unit vectors of texts; the vector of a text without a single known token is zero. */
  embed(texts: readonly string[]): Promise<readonly Float32Array[]>
}

/** The shipped static word embeddings, made by make.ts. */
export const defaultDirectory = fileURLToPath(new URL('default', import.meta.url))

/** What fastembed reads of a model directory. */
const FILES = ['model.onnx', 'tokenizer.json', 'config.json', 'tokenizer_config.json', 'special_tokens_map.json']
const CALIBRATION = 'calibration.json'

/** fastembed pads every text to this many tokens, so it is kept as small as short answers and questions allow. */
const MAX_TOKENS = 32

/** Where models that fastembed fetches are kept. */
export const embeddingCache = (env: NodeJS.ProcessEnv = process.env): string =>
  join(env['XDG_CACHE_HOME'] || join(env['HOME'] || homedir(), '.cache'), 'visplay', 'fastembed')

/**
 * Opens a model of fastembed's list (names.ts), or a fastembed model directory (any sentence embedding whose `model.onnx`
 * takes `input_ids`, `attention_mask`, `token_type_ids` and gives `last_hidden_state` [B, T, D]; row 0 is the embedding).
 * `run` of onnxruntime blocks its thread: with the shipped model for well under a millisecond a text; put a big one into a
 * worker. A directory may say in `calibration.json` how its cosines are to be read (`{"zero": …, "one": …}`); for others
 * that is measured on known words (calibrate.ts).
 *
 * @throws Error in one line when a directory lacks files, a model cannot be fetched, or cosines do not tell answers apart.
 */
export async function openEmbedder(
  model: string = defaultDirectory,
  cache: string = embeddingCache(),
): Promise<TextEmbedder> {
  const opened = isEmbeddingName(model) ? await fetchNamed(model, cache) : await openDirectory(model)
  const embed = async (texts: readonly string[]): Promise<readonly Float32Array[]> => {
    if (texts.length === 0) return []
    const vectors: Float32Array[] = []
    for await (const batch of opened.embed([...texts])) for (const row of batch) vectors.push(Float32Array.from(row))
    return vectors
  }
  const directory = isEmbeddingName(model) ? join(cache, model) : model
  return { name: `fastembed:${basename(model)}`, calibration: await calibrationOf(directory, embed), embed }
}

async function calibrationOf(directory: string, embed: TextEmbedder['embed']): Promise<Calibration> {
  const file = join(directory, CALIBRATION)
  if (existsSync(file)) return calibrationSchema.parse(JSON.parse(readFileSync(file, 'utf8')))
  const measured = await calibrate(embed)
  if (calibrationSchema.safeParse(measured).success) return measured
  throw new Error(
    `the embedding model in ${directory} finds answers that exclude each other as alike as synonyms ` +
      `(cosines around ${measured.one}): choose another, or write ${file} {"zero": …, "one": …}`,
  )
}

async function openDirectory(directory: string): Promise<FlagEmbedding> {
  const missing = FILES.filter((file) => !existsSync(join(directory, file)))
  if (missing.length > 0) {
    const what = existsSync(directory) ? `${missing.join(', ')} missing` : 'no such directory on this machine'
    throw new Error(
      `no embedding model in ${directory}: ${what}; copy a directory of fastembed files there, or change similarity.model`,
    )
  }
  const { EmbeddingModel, FlagEmbedding } = await loadFastembed()
  return FlagEmbedding.init({
    model: EmbeddingModel.CUSTOM,
    modelAbsoluteDirPath: directory,
    modelName: 'model.onnx',
    maxLength: MAX_TOKENS,
  })
}

/** fastembed fetches what the cache does not hold; what a broken transfer leaves is removed, as it would be taken for whole. */
async function fetchNamed(name: EmbeddingName, cache: string): Promise<FlagEmbedding> {
  const { FlagEmbedding } = await loadFastembed()
  const [folder, archive] = [join(cache, name), join(cache, `${name}.tar.gz`)]
  const known = existsSync(folder)
  try {
    await mkdir(cache, { recursive: true })
    if (!known) await rm(archive, { force: true })
    return await FlagEmbedding.init({
      model: name as Exclude<EmbeddingModel, EmbeddingModel.CUSTOM>,
      cacheDir: cache,
      maxLength: MAX_TOKENS,
      showDownloadProgress: false,
    })
  } catch (cause) {
    if (!known)
      await Promise.all(
        [folder, archive].map((path) => rm(path, { recursive: true, force: true }).catch(() => undefined)),
      )
    const reason = (cause as Error).message
    throw new Error(
      `the embedding model ${name} cannot be ${known ? 'opened' : 'fetched'} (${reason}): unpack fastembed's archive of it ` +
        `so that ${join(folder, 'tokenizer.json')} is there, or give similarity.model a directory`,
      { cause },
    )
  }
}

/** Loaded only when needed: its tokenizer is native and not built for every platform (Linux on ARM, musl). */
async function loadFastembed() {
  try {
    return await import('fastembed')
  } catch (cause) {
    throw new Error('fastembed does not load on this machine; use --set similarity.kind=exact instead', { cause })
  }
}
