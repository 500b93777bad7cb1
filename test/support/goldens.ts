/** Where the golden files are and how tests name them. `GOLDENS=DIR` takes a full set instead of the repository's part. */
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'

export const goldens = process.env['GOLDENS'] ?? join(import.meta.dirname, '../goldens')

/** Variants of every family: small ones in the repository, those of a full set elsewhere. */
export const familyVariants = existsSync(join(goldens, 'llava/small-crop'))
  ? ['smolvlm/tiny64', 'llava/small-crop', 'llava/small-pad', 'llava_next/small-anyres', 'qwen2_5_vl/small']
  : ['smolvlm/tiny64', 'llava/clip-crop', 'llava/pad-square', 'llava_next/anyres', 'qwen2_5_vl/base', 'qwen2_5_vl/mimo']

export const smolVlmVariants = ['smolvlm/tiny64', 'smolvlm/split', 'smolvlm/idefics3'] as const
export const qwenVariants = familyVariants.filter((variant) => variant.startsWith('qwen2_5_vl/'))
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
