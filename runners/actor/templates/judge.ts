/** A judge of your own. It takes the place of the run's Judge as long as it lives; every verdict names it. */
import { countVotes, defineJudge } from 'visplay/actor'

export default defineJudge({
  name: 'my-judge',
  version: '1',
  async judge({ silver, answers, malformed }) {
    if (malformed !== null) return { questioner: { reward: -1, parts: {} }, reasoner: null }
    const { agreement, majority, share } = countVotes(answers, silver)
    return {
      // A good question is answered half and half.
      questioner: { reward: Math.min(share, 1 - share), parts: { share } },
      // One number per answer; null is an answer that could not be read.
      reasoner: {
        rewards: answers.map((answer) => (answer?.trim().toLowerCase() === majority ? 1 : 0)),
        keep: share > 0.3,
        dropped: share > 0.3 ? null : 'no clear majority',
        agreement,
        majority,
        share,
      },
    }
  },
})
