/** Why a run stands still: requests that somebody waits for, and that are neither on the queue nor answered nor given up. */
import { answerId, askId } from '../../actors/ids.ts'
import { deadId, stores } from '../../bus/subjects.ts'
import type { Intruder } from './intruder.ts'

export async function lostRequests({ run, bus, jsm }: Intruder): Promise<string[]> {
  const { state } = await jsm.streams.info(stores.tasks(run), { subjects_filter: '>' })
  const queued = Object.keys(state.subjects ?? {}).map((subject) => subject.split('.task.')[1]!)
  const waitedFor = queued.flatMap((task) => {
    const id = task.slice(task.lastIndexOf('.') + 1)
    if (task.startsWith('questioner.images.')) return [askId(id)]
    return task.startsWith('reasoner.questions.') ? [answerId(id)] : []
  })
  // With nothing on the queue at all the Optimizer waits, and only for gradients.
  const lost = queued.length === 0 ? [`gradients of step ${((await bus.getHead())?.head.version ?? 0) + 1}`] : []
  for (const id of waitedFor) {
    if (queued.includes(`model.generate.${id}`)) continue
    const ends = [bus.find('generated', id), bus.find('dead', deadId('model.generate', id))]
    if ((await Promise.all(ends)).every((end) => end === null)) lost.push(id)
  }
  return lost
}
