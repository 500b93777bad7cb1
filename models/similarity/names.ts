/** Models that fastembed knows by name and fetches when one is asked for. */
export const EMBEDDING_MODELS = [
  'fast-all-MiniLM-L6-v2',
  'fast-bge-base-en',
  'fast-bge-base-en-v1.5',
  'fast-bge-small-en',
  'fast-bge-small-en-v1.5',
  'fast-bge-small-zh-v1.5',
  'fast-multilingual-e5-large',
] as const
export type EmbeddingName = (typeof EMBEDDING_MODELS)[number]

export const isEmbeddingName = (model: string): model is EmbeddingName =>
  (EMBEDDING_MODELS as readonly string[]).includes(model)
