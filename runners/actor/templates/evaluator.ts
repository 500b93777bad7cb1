/** An evaluator: asks the model a question about the first image of the run at every tenth version, and remarks on the answer. */
import { defineActor } from 'visplay/actor'

const name = 'my-evaluator'
const version = '1'

export default defineActor({
  role: 'my-evaluator',
  name,
  version,
  consumes: ['version'],
  produces: ['model.generate', 'remark'],
  async handle({ message: { data } }, context) {
    const { weights } = data
    if (weights % 10 !== 0) return
    const { image } = (await context.await('questions', 's1-i0')).message.data
    const reply = await context.request('model.generate', `${name}-v${weights}`, {
      image,
      prompt: 'What is in the image? Answer with one or two words.',
      samples: 1,
      maxNewTokens: 16,
      temperature: 0,
      seed: 0,
      // The newest version there is by then: old ones are not kept.
      minWeights: weights,
      weights: null,
      cohort: null,
    })
    const answer = reply.completions[0]?.text ?? ''
    const about = `v${reply.weights}`
    context.log(`${about}: ${answer}`)
    await context.append('remark', `${name}-v${weights}`, { name, version, about, data: { answer } })
  },
})
