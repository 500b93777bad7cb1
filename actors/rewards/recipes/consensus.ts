/**
 * The default recipe: the silver answer is the reference, but counts only where the Reasoner's own majority gives it.
 * Without this gate both roles learn to agree on nonsense (collusion), or the Questioner learns that wrong silver
 * answers are "difficult".
 */
import { z } from 'zod'
import { exactAgreement } from '../agreement.ts'
import { inRange, malformedVerdict, reasonerRewards, withExtra } from '../compose.ts'
import { difficultyOf } from '../difficulty.ts'
import { DIVERSITIES, diversityOf } from '../diversity.ts'
import { normalizeAnswer } from '../normalize.ts'
import { defineRecipe, knobs } from '../recipe.ts'
import { countVotes } from '../vote.ts'
import type { Vote } from '../vote.ts'

const configSchema = z.strictObject({
  ...knobs,
  alpha: knobs.alpha.default(1),
  beta: knobs.beta.default(1),
  difficulty: knobs.difficulty.default('peak'),
  diversity: z.enum(DIVERSITIES).default('words').describe('How questions of a step are compared'),
  keep: knobs.keep.default([0, 1]),
  formatWeight: knobs.formatWeight.default(0),
  malformedAnswer: knobs.malformedAnswer.default(-1),
  skipNone: z
    .enum(['any', 'doubtful', 'never'])
    .default('any')
    .describe('Groups with "none"-like answers: skip all, only those where "none" is not the majority, or never'),
  gate: z
    .enum(['both', 'questioner'])
    .default('both')
    .describe('Whom a silver answer that is not the majority answer holds back: both roles, or the Questioner alone'),
})
type Config = z.output<typeof configSchema>

export const consensus = defineRecipe({
  name: 'consensus',
  version: '1',
  configSchema,
  async judge(input, similarity, config) {
    if (input.malformed !== null) return malformedVerdict(config.malformedQuestion)
    const { question, silver, answers, others } = input
    const vote = countVotes(answers, silver, config.noneWords)
    const agrees = vote.majority === normalizeAnswer(silver)
    const dropped = dropReason(vote, agrees, config)
    const difficulty = difficultyOf(vote.share, config.difficulty)
    const diversity = await diversityOf(question, others, config.diversity, similarity)
    const open = agrees && (vote.none === 0 || config.skipNone === 'never')
    const value = config.alpha * difficulty + config.beta * diversity
    return withExtra(
      {
        questioner: { reward: open ? value : Math.min(value, 0), parts: { difficulty, diversity, gate: Number(open) } },
        reasoner: {
          rewards: reasonerRewards(answers, exactAgreement(answers, silver), config),
          keep: dropped === null,
          dropped,
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

function dropReason(vote: Vote, agrees: boolean, config: Config): string | null {
  if (vote.majority === null) return 'no final answer in the group'
  if (!agrees && config.gate === 'both') return 'the silver answer is not the majority answer'
  if (vote.none > 0 && config.skipNone === 'any') return 'a "none"-like answer in the group'
  const mostlyNone = config.noneWords.map(normalizeAnswer).includes(vote.majority)
  if (vote.none > 0 && config.skipNone === 'doubtful' && !mostlyNone)
    return 'a doubtful "none"-like answer in the group'
  if (!inRange(vote.share, config.keep)) return `share outside [${config.keep.join(', ')}]`
  return null
}
