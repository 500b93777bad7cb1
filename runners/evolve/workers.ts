/** How the actors are started that any number of processes may run. */
import { judge } from '../../actors/judge.ts'
import { modelActor } from '../../actors/model-actor.ts'
import type { Ports } from '../../actors/ports.ts'
import { questioner } from '../../actors/questioner.ts'
import { reasoner } from '../../actors/reasoner.ts'
import { createJudge } from '../../actors/rewards/recipes/registry.ts'
import type { Similarity } from '../../actors/rewards/similarity.ts'
import type { RunActor } from '../../actors/run-actor.ts'
import type { Config } from '../../configs/schema.ts'
import type { Worker } from '../../configs/workers.ts'
import type { Model } from '../../models/model.ts'

export interface WorkerOptions {
  readonly config: Config
  readonly model: Model
  readonly similarity: Similarity
}

export const workers: Readonly<Record<Worker, (ports: Ports, options: WorkerOptions) => RunActor>> = {
  questioner: (ports, { config: { prompts, groups, generation, seed } }) => {
    const { temperature, maxQuestionTokens: maxNewTokens } = generation
    const { questions } = groups
    return questioner(ports, { prompt: prompts.questioner, questions, maxNewTokens, temperature, seed })
  },
  reasoner: (ports, { config: { prompts, groups, generation, seed } }) => {
    const { temperature, maxAnswerTokens: maxNewTokens } = generation
    const { answers, images } = groups
    return reasoner(ports, { prompt: prompts.reasoner, answers, images, maxNewTokens, temperature, seed })
  },
  judge: (ports, { config, similarity }) => {
    const recipe = createJudge(config.recipe, config.recipes[config.recipe])
    return judge(ports, { recipe, similarity, images: config.groups.images })
  },
  model: (ports, { model }) => modelActor(ports, { model }),
}
