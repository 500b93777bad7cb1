/** A task that no worker can do, and one that is no message at all: a few tries, one dead letter each, the rest unharmed. */
import { deadTasks } from '../../../runners/dead/dead.ts'
import type { Fault } from '../fault.ts'

export const poison: Fault = {
  row: '7',
  name: 'a poison task: at most 5 tries, one dead letter, the rest unharmed',
  async run(lab) {
    const run = await lab.run(60)
    const intruder = await run.intruder()
    const { bus } = intruder
    await run.step(1)
    const image = await bus.putBlob(new TextEncoder().encode('this is no picture'))
    const task = { samples: 1, maxNewTokens: 8, temperature: 1, seed: 1, minWeights: 0, cohort: null, weights: null }
    await bus.publish('model.generate', 'poison', { image, prompt: 'What is this?', ...task })
    await intruder.publish('task.model.generate.garbage', new TextEncoder().encode('{"no": "message"'))
    const dead = async (id: string) => (await deadTasks(bus)).filter((task) => task.id === id)
    await lab.until('both are given up', async () => (await deadTasks(bus)).length === 2, 120)
    const [[poisoned], [garbage]] = [await dead('poison'), await dead('garbage')]
    lab.expect(poisoned !== undefined && poisoned.deliveries <= 5, 'one-end', 'the poison was not given up in 5 tries')
    lab.expect(garbage?.deliveries === 1, 'one-end', 'what is no message was tried more than once')
    lab.figures['tries'] = poisoned?.deliveries ?? 0
    lab.figures['cause'] = poisoned?.cause ?? 'none'
    await lab.until('the last steps', () => run.steps >= 59, 120)
    lab.expect((await deadTasks(bus)).length === 2, 'unharmed', 'other tasks were given up as well')
    await run.prove()
  },
}
