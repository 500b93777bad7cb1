/** A reward of your own, added to what the run's recipe gives. */
import { defineJudge } from 'visplay/actor'

export default defineJudge({
  name: 'my-reward',
  version: '1',
  async judge({ question }, { base }) {
    const verdict = await base()
    // Short questions are worth more to the Questioner.
    const brevity = 0.1 * Math.max(0, 1 - question.split(/\s+/).length / 20)
    const { reward, parts } = verdict.questioner
    return { ...verdict, questioner: { reward: reward + brevity, parts: { ...parts, brevity } } }
  },
})
