/**
 * A judge that asks a language model whether an answer agrees with the silver answer: any OpenAI-compatible endpoint.
 * The base of the run itself is one: npx visplay serve --run my-run, with the model my-run@0.
 */
import { countVotes, defineJudge, llmAgreement } from 'visplay/actor'

const { LLM_JUDGE_URL: url, LLM_JUDGE_MODEL: model, LLM_JUDGE_KEY: key } = process.env
const llm = await llmAgreement({ url, model, key })

export default defineJudge({
  name: 'llm-judge',
  version: `1 ${llm.model}`,
  async judge({ question, silver, answers, malformed }, { signal }) {
    if (malformed !== null) return { questioner: { reward: -1, parts: {} }, reasoner: null }
    // 1, 0, or null where the language model was not clear.
    const agreements = await llm.agree(question, silver, answers, signal)
    const unclear = agreements.filter((agrees) => agrees === null).length
    const agreement = agreements.reduce<number>((sum, agrees) => sum + (agrees ?? 0), 0) / answers.length
    const { majority, share } = countVotes(answers, silver)
    return {
      // A good question is answered half and half.
      questioner: { reward: Math.min(agreement, 1 - agreement), parts: { agreement, unclear } },
      reasoner: {
        rewards: agreements.map((agrees) => agrees ?? 0),
        keep: unclear === 0,
        dropped: unclear === 0 ? null : `${llm.model} said neither yes nor no`,
        agreement,
        majority,
        share,
      },
    }
  },
})
