/**
 * The recipe of the paper's summary: the Questioner's silver answer is the reference, the Reasoner is rewarded for
 * being similar to it, the Questioner for difficulty (1 − mean similarity) and diversity. It collapses at high learning
 * rates: nothing stops the roles from agreeing on wrong answers, and wrong silver answers are the most "difficult".
 */
import { z } from 'zod'
import { similarAgreement } from '../agreement.ts'
import { inRange, malformedVerdict, reasonerRewards, withExtra } from '../compose.ts'
import { difficultyOf } from '../difficulty.ts'
import { DIVERSITIES, diversityOf } from '../diversity.ts'
import { defineRecipe, knobs } from '../recipe.ts'
import { countVotes } from '../vote.ts'

const configSchema = z.strictObject({
  ...knobs,
  alpha: knobs.alpha.default(1),
  beta: knobs.beta.default(1),
  difficulty: knobs.difficulty.default('hard'),
  diversity: z.enum(DIVERSITIES).default('words').describe('How questions of a step are compared'),
  keep: knobs.keep.default([0, 1]),
  formatWeight: knobs.formatWeight.default(0),
  malformedAnswer: knobs.malformedAnswer.default(-1),
})

export const silverReference = defineRecipe({
  name: 'silver-reference',
  version: '1',
  configSchema,
  async judge(input, similarity, config) {
    if (input.malformed !== null) return malformedVerdict(config.malformedQuestion)
    const { question, silver, answers, others } = input
    const vote = countVotes(answers, silver, config.noneWords)
    const similarities_G = await similarAgreement(answers, silver, similarity)
    const meanSimilarity = similarities_G.reduce((sum, value) => sum + value, 0) / similarities_G.length
    const difficulty = difficultyOf(meanSimilarity, config.difficulty)
    const diversity = await diversityOf(question, others, config.diversity, similarity)
    const keep = inRange(meanSimilarity, config.keep)
    return withExtra(
      {
        questioner: {
          reward: config.alpha * difficulty + config.beta * diversity,
          parts: { difficulty, diversity, similarity: meanSimilarity },
        },
        reasoner: {
          rewards: reasonerRewards(answers, similarities_G, config),
          keep,
          dropped: keep ? null : `mean similarity outside [${config.keep.join(', ')}]`,
          agreement: vote.agreement,
          majority: vote.majority,
          share: vote.share,
        },
      },
      { question, silver, answers_G: answers, vote, label: silver, questions_N: others, similarity },
      config.extra,
    )
  },
})
