/** A critic: reads along and remarks on what it sees. Its remarks are in the log, for `visplay tap 'log.remark.*'`. */
import { defineActor } from 'visplay/actor'

const name = 'my-critic'
const version = '1'

export default defineActor({
  role: 'critic',
  name,
  version,
  consumes: ['questions'],
  produces: ['remark'],
  async handle({ message: { data } }, context) {
    for (const { group, question, malformed } of data.questions) {
      if (malformed !== null || question.endsWith('?')) continue
      // The id depends on the work alone, so that a remark made twice is one.
      await context.append('remark', `critic-${group}`, { name, version, about: group, data: { complaint: 'no "?"' } })
    }
  },
})
