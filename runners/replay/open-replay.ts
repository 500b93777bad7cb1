/** A replay of a run under a configuration: its own, or another to compare with. */
import { Replay } from '../../actors/replay.ts'
import { createJudge } from '../../actors/rewards/recipes/registry.ts'
import { openSimilarity } from '../../actors/rewards/similarity.ts'
import type { Config } from '../../configs/schema.ts'
import { assembleOptions } from '../evolve/assemble-options.ts'

/** @param only Judge again only what this recipe has judged; null = everything. */
export async function openReplay(config: Config, only: string | null): Promise<Replay> {
  return new Replay({
    recipe: createJudge(config.recipe, config.recipes[config.recipe]),
    only,
    similarity: await openSimilarity(config.similarity),
    images: config.groups.images,
    assemble: assembleOptions(config),
  })
}
