/**
 * The recipe of VisPlay's released code: the majority of the Reasoner's answers is the pseudo label; the silver answer
 * only has to exist. Questions where the vote is nearly unanimous or nearly lost are not trained.
 */
import { z } from 'zod'
import { exactAgreement } from '../agreement.ts'
import { clusterShareOf } from '../cluster-share.ts'
import { inRange, malformedVerdict, reasonerRewards, withExtra } from '../compose.ts'
import { difficultyOf } from '../difficulty.ts'
import { defineRecipe, knobs } from '../recipe.ts'
import { countVotes } from '../vote.ts'

const configSchema = z.strictObject({
  ...knobs,
  alpha: knobs.alpha.default(1),
  beta: knobs.beta.default(1),
  difficulty: knobs.difficulty.default('peak'),
  keep: knobs.keep.default([0.3, 0.8]),
  formatWeight: knobs.formatWeight.default(0.1),
  malformedAnswer: knobs.malformedAnswer.default(0),
})

export const majorityVote = defineRecipe({
  name: 'majority-vote',
  version: '1',
  configSchema,
  async judge(input, similarity, config) {
    if (input.malformed !== null) return malformedVerdict(config.malformedQuestion)
    const { question, silver, answers, others } = input
    const vote = countVotes(answers, silver, config.noneWords)
    const difficulty = difficultyOf(vote.share, config.difficulty)
    const clusterShare = clusterShareOf(question, others)
    const keep = vote.majority !== null && inRange(vote.share, config.keep)
    return withExtra(
      {
        questioner: {
          reward: config.alpha * difficulty - config.beta * clusterShare,
          parts: { difficulty, clusterShare },
        },
        reasoner: {
          rewards: reasonerRewards(answers, exactAgreement(answers, vote.majority), config),
          keep,
          dropped: keep ? null : `majority share outside [${config.keep.join(', ')}]`,
          agreement: vote.agreement,
          majority: vote.majority,
          share: vote.share,
        },
      },
      { question, silver, answers_G: answers, vote, label: vote.majority, questions_N: others, similarity },
      config.extra,
    )
  },
})
