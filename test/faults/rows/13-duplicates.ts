/** Everything is said twice, when the server has long forgotten that it was said before; the second time with other words. */
import { divide } from '../../../bus/divide.ts'
import type { Task, TaskKind } from '../../../bus/messages.ts'
import type { Heard } from '../../../bus/nats/tap.ts'
import type { Fault } from '../fault.ts'

export const duplicates: Fault = {
  row: '13',
  name: 'duplicates of tasks and results beyond the dedupe window',
  async run(lab) {
    const run = await lab.run(16)
    const intruder = await run.intruder()
    const tap = await run.tap()
    const counts = { 'tasks again': 0, 'results again': 0, 'results refused': 0 }
    const stop = new AbortController()
    lab.finally(async () => Promise.resolve(stop.abort()))
    /** By the result of each item. */
    const tasks = new Map<string, Said>()
    const twice = new Set<string>()
    // A message without an id for the server to know it by is what one is after the window.
    const hear = async ({ subject, bytes }: Heard): Promise<void> => {
      const [, , family, ...rest] = subject.split('.')
      const name = rest.join('.')
      if (family === 'task') {
        for (const result of resultsOf(name, bytes)) tasks.set(result, tasks.get(result) ?? { name, bytes })
      }
      const task = family === 'log' ? taskOf(name) : null
      // Not what was said here.
      if (task === null || twice.has(name)) return
      twice.add(name)
      const done = tasks.get(task)
      if (done && (await intruder.publish(`task.${done.name}`, done.bytes)) === 'taken') counts['tasks again']++
      counts['results again']++
      if ((await intruder.publish(`log.${name}`, otherwise(bytes))) === 'refused') counts['results refused']++
    }
    const listening = (async () => {
      for await (const heard of tap.listen({ filter: '>', since: null, follow: true, signal: stop.signal })) {
        if (heard.kind === 'message') await hear(heard)
      }
    })()
    await lab.until('the last step', () => run.over || run.steps >= 15, 120)
    stop.abort()
    await listening
    Object.assign(lab.figures, counts)
    lab.expect(counts['tasks again'] > 20, 'progress', 'hardly any task was put on the queue a second time')
    await run.prove()
  },
}

const TASKS: Readonly<Record<string, string>> = {
  questions: 'questioner.images',
  answers: 'reasoner.questions',
  verdict: 'judge.groups',
  generated: 'model.generate',
}

interface Said {
  readonly name: string
  readonly bytes: Uint8Array
}

/** The tasks of one item that a task amounts to. */
function resultsOf(name: string, bytes: Uint8Array): string[] {
  const [kind, id] = [name.slice(0, name.lastIndexOf('.')), name.slice(name.lastIndexOf('.') + 1)]
  const { data } = JSON.parse(Buffer.from(bytes).toString('utf8')) as { data: Task<TaskKind> }
  const items = divide(kind as TaskKind, data).map((item) => item.id)
  return [id, ...items].map((item) => `${kind}.${item}`)
}

/** The task that an event is the result of. */
function taskOf(event: string): string | null {
  const [name = '', id = ''] = event.split('.')
  return name in TASKS ? `${TASKS[name]}.${id}` : null
}

/** A result as somebody else might have computed it. */
function otherwise(bytes: Uint8Array): Uint8Array {
  const text = Buffer.from(bytes).toString('utf8')
  return Buffer.from(text.replaceAll(/"reward":-?[\d.]+/g, '"reward":0.123').replaceAll('"yes"', '"no"'))
}
