/** Where the golden files are and how tests name them. `GOLDENS=DIR` takes a full set instead of the repository's part. */
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'

export const goldens = process.env['GOLDENS'] ?? join(import.meta.dirname, '../goldens')

export const smolVlmVariants = ['smolvlm/tiny64', 'smolvlm/split', 'smolvlm/idefics3'] as const
/** One in the repository, others in a full set. */
export const qwenVariants = readdirSync(join(goldens, 'qwen2_5_vl')).map((name) => `qwen2_5_vl/${name}`)
/** The one of the repository, whatever `GOLDENS` says. */
export const qwenSmall = join(import.meta.dirname, '../goldens/qwen2_5_vl/small')

/** Parsed JSON of a golden file; the caller names the shape it relies on. */
export function goldenJson<T>(...path: string[]): T {
  return JSON.parse(readFileSync(join(goldens, ...path), 'utf8')) as T
}

/** Names of a variant's cases. */
export function goldenCases(variant: string): string[] {
  const files = readdirSync(join(goldens, variant, 'cases'))
  return files.filter((file) => file.endsWith('.json')).map((file) => file.slice(0, -'.json'.length))
}

/** The file whose pixels the goldens start from: the decoded PNG where decoders may differ or channels were converted. */
export function goldenImage(path: string): string {
  const images = goldenJson<Record<string, { decoded_png?: string }>>('images', 'images.json')
  const name = path.replace(/^images\//, '')
  return join(goldens, 'images', images[name]?.decoded_png ?? name)
}
