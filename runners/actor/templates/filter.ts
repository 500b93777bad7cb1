/** A filter: the run's own recipe judges, and groups that you do not want are not trained. */
import { defineJudge } from 'visplay/actor'

const UNWANTED = /\b(left|right)\b/i

export default defineJudge({
  name: 'my-filter',
  version: '1',
  async judge({ question }, { base }) {
    const verdict = await base()
    if (!verdict.reasoner || !UNWANTED.test(question)) return verdict
    return { ...verdict, reasoner: { ...verdict.reasoner, keep: false, dropped: 'unwanted question' } }
  },
})
