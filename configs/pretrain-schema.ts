/** The recipe of `visplay pretrain`. */
import { readFileSync } from 'node:fs'
import { parse } from 'yaml'
import { z } from 'zod'
import { ConfigError } from './errors.ts'

const positive = z.int().positive()

export const phaseSchema = z
  .strictObject({
    kind: z.enum(['vision', 'captions', 'questions']).describe('What is learnt'),
    steps: positive.describe('Updates'),
    images: positive.describe('Pictures per update'),
    lr: z.number().positive().describe('Peak learning rate of AdamW'),
    answerNoise: z.number().min(0).max(1).default(0).describe('Share of answers replaced by another of their category'),
  })
  .describe('One stage of training')

export const pretrainSchema = z.strictObject({
  seed: z.int().nonnegative().default(1),
  pool: positive.default(30_000).describe('Labelled pictures that the batches are drawn from'),
  phases: z.array(phaseSchema).min(1),
})

export type PretrainConfig = z.infer<typeof pretrainSchema>

/** Reads a recipe file; a ConfigError names the file, the key and what is wrong. */
export function readPretrainConfig(file: string): PretrainConfig {
  const parsed = pretrainSchema.safeParse(parse(readFileSync(file, 'utf8')))
  if (parsed.success) return parsed.data
  const issue = parsed.error.issues[0]!
  throw new ConfigError(`${file}: ${issue.path.join('.')}: ${issue.message}`)
}
