/** Every recipe by name. To add one: a file that exports a `Recipe`, and its line here. */
import type { Judge, Recipe } from '../recipe.ts'
import { consensus } from './consensus.ts'
import { majorityVote } from './majority-vote.ts'
import { silverReference } from './silver-reference.ts'

export const recipes: Readonly<Record<string, Recipe>> = {
  consensus,
  'silver-reference': silverReference,
  'majority-vote': majorityVote,
}

/** The recipe of that name with its knobs set; throws when there is none, and a ZodError for a wrong knob. */
export function createJudge(name: string, rawConfig: unknown = {}): Judge {
  const recipe = recipes[name]
  if (!recipe) throw new RangeError(`no recipe is called "${name}"; there are ${Object.keys(recipes).join(', ')}`)
  return recipe.bind(rawConfig)
}
