/** A recipe composes rewards into the verdict of a question and its answers. */
import { z } from 'zod'
import type { EventData } from '../../bus/messages.ts'
import { DIFFICULTIES } from './difficulty.ts'
import { rewards } from './registry.ts'
import type { Similarity } from './similarity.ts'
import { NONE_WORDS } from './vote.ts'

export interface JudgeInput {
  readonly question: string
  readonly silver: string
  /** Final answers of the group as written, null where malformed; empty for a malformed question. */
  readonly answers: readonly (string | null)[]
  /** All well-formed questions of the step, this one included. */
  readonly others: readonly string[]
  /** Why the question is malformed, or null. */
  readonly malformed: string | null
}

/** The scored parts of a `verdict` event. */
export type JudgeOutput = Pick<EventData<'verdict'>, 'questioner' | 'reasoner'>

/** A recipe bound to its configuration. */
export interface Judge {
  readonly name: string
  readonly version: string
  judge(input: JudgeInput, similarity: Similarity): Promise<JudgeOutput>
}

export interface Recipe {
  readonly name: string
  /** Raised whenever the same input may get another verdict. */
  readonly version: string
  readonly configSchema: z.ZodType
  /** Parses the configuration and binds the recipe to it; throws a ZodError that names the wrong knob. */
  bind(rawConfig: unknown): Judge
}

interface RecipeDefinition<S extends z.ZodType> extends Omit<Recipe, 'bind'> {
  readonly configSchema: S
  judge(input: JudgeInput, similarity: Similarity, config: z.output<S>): Promise<JudgeOutput>
}

/** Makes a recipe of a schema for its knobs and a function that judges with them. */
export function defineRecipe<S extends z.ZodType>(definition: RecipeDefinition<S>): Recipe {
  const { name, version, configSchema, judge } = definition
  return {
    name,
    version,
    configSchema,
    bind(rawConfig) {
      const config = configSchema.parse(rawConfig)
      return { name, version, judge: (input, similarity) => judge(input, similarity, config) }
    },
  }
}

/** Knobs that all recipes share; each recipe sets its own defaults. */
export const knobs = {
  alpha: z.number().describe("Weight of the difficulty in the Questioner's reward"),
  beta: z
    .number()
    .describe("Weight of the diversity (or of the cluster share, as a penalty) in the Questioner's reward"),
  difficulty: z
    .enum(DIFFICULTIES)
    .describe('hard: the less the answers agree, the better; peak: best where half of them agree'),
  keep: z
    .tuple([z.number().min(0).max(1), z.number().min(0).max(1)])
    .refine(([low, high]) => low <= high, 'the lower end comes first')
    .describe('Groups are trained only where the agreeing share of answers lies in this range, ends included'),
  formatWeight: z
    .number()
    .min(0)
    .max(1)
    .describe("Part of the Reasoner's reward that is for having a final answer at all"),
  malformedAnswer: z.number().describe("The Reasoner's reward for a completion without a final answer"),
  malformedQuestion: z.number().default(-1).describe("The Questioner's reward for a malformed question"),
  noneWords: z
    .array(z.string().min(1))
    .default([...NONE_WORDS])
    .describe('Answers that say that there is none'),
  extra: z
    .record(
      z.string().refine((name) => name in rewards, `a reward is one of ${Object.keys(rewards).join(', ')}`),
      z.number(),
    )
    .default({})
    .describe('Further rewards of the registry: weight by name, added to the reward of the role that each belongs to'),
} as const
