/** Another release on the bus: messages of a schema version that this one does not know are refused, and it is said. */
import { join } from 'node:path'
import { SCHEMA_VERSION } from '../../../bus/messages.ts'
import { deadTasks } from '../../../runners/dead/dead.ts'
import type { Fault } from '../fault.ts'
import { mutatedCopy, type Edit } from '../mutated-copy.ts'
import { ALL } from '../run.ts'

const TRACE = `00-${'1'.repeat(32)}-${'2'.repeat(16)}-01`
const OTHER = SCHEMA_VERSION + 1

/** The program as it might be one release later. */
const NEWER_RELEASE: readonly Edit[] = [
  { file: 'bus/messages.ts', old: `SCHEMA_VERSION = ${SCHEMA_VERSION}`, new: `SCHEMA_VERSION = ${OTHER}` },
]

const message = (schema: string, data: unknown): Uint8Array =>
  new TextEncoder().encode(
    JSON.stringify({
      ...{ schema, version: OTHER, traceparent: TRACE, at: new Date().toISOString(), by: 'judge.newer' },
      data,
    }),
  )

export const schemas: Fault = {
  row: '15',
  name: 'messages of another schema version are refused visibly',
  async run(lab) {
    const run = await lab.run(60)
    const intruder = await run.intruder()
    const { bus } = intruder
    await run.step(1)
    const task = { step: 1, groups: [{ group: 'newer', questions: 'newer', answers: null }] }
    await intruder.publish('task.judge.groups.newer', message('judge.groups', task))
    await intruder.publish('log.verdict.newer', message('verdict', { step: 2, group: 'newer' }))
    intruder.say('judge.newer.heartbeat', message('heartbeat', { state: 'working', weights: null, inFlight: 0 }))
    const newer = await mutatedCopy(lab.dir, NEWER_RELEASE)
    const joining = run.joining(ALL, { entry: join(newer, 'runners', 'bin.mjs') })
    const { code, stderr } = await joining.ended
    lab.expect(code === 1 && stderr.includes(`version ${SCHEMA_VERSION} of schema`), 'visible', `it joined: ${stderr}`)
    const alarms = async () => {
      const found: string[] = []
      const reading = { follow: false, signal: new AbortController().signal }
      for await (const record of bus.read(['alarm'], reading)) found.push(record.message.data.message)
      return found.filter((text) => text.includes(`version ${OTHER}`))
    }
    await lab.until(
      'an alarm about the record and one about the live message',
      async () => (await alarms()).length >= 2,
    )
    await lab.until('a dead letter', async () => (await deadTasks(bus)).length === 1)
    const [dead] = await deadTasks(bus)
    lab.expect(dead!.cause.includes(`version ${OTHER}`), 'visible', `the dead letter says only: ${dead!.cause}`)
    lab.figures['said'] = dead!.cause
    await run.prove({ except: ['readable'] })
  },
}
