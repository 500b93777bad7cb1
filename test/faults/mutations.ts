/** The suite itself is tested: without one of these guards some row must fail, and name what no longer holds. */
import type { Invariant } from '../../actors/audit.ts'
import type { Edit } from './mutated-copy.ts'

export interface Mutation {
  readonly name: string
  readonly about: string
  readonly edits: readonly Edit[]
  /** Rows that must notice it. */
  readonly rows: readonly string[]
  /** What they must name. */
  readonly breaks: readonly Invariant[]
}

export const MUTATIONS: readonly Mutation[] = [
  {
    name: 'dedupe',
    about: 'the log takes a second record of an id',
    edits: [
      {
        file: 'bus/nats/shared.ts',
        old: '    max_msgs_per_subject: 1,\n    discard_new_per_subject: true,\n',
        new: '',
      },
      {
        file: 'bus/nats/log.ts',
        old: 'publish(subject, bytes, { id: `${event}.${id}`, first: true })',
        new: 'publish(subject, bytes)',
      },
    ],
    rows: ['13'],
    breaks: ['one-record'],
  },
  {
    name: 'fence',
    about: 'the head moves whatever it was before',
    edits: [
      {
        file: 'bus/carried-bus.ts',
        old: 'return this.#carrier.moveValue(HEAD_KEY, bytes, expected)',
        new: 'void expected\n    return this.#carrier.putValue(HEAD_KEY, bytes).then(() => true)',
      },
    ],
    rows: ['5'],
    breaks: ['head'],
  },
  {
    name: 'ack',
    about: 'a request is acknowledged before its result is in the log',
    edits: [
      {
        file: 'actors/model-server.ts',
        old: 'this.#held.set(task.key, { task, waiting: describe(task) })',
        new: 'this.#held.set(task.key, { task, waiting: describe(task) })\n    this.#ports.ack(task.key)',
      },
    ],
    rows: ['1'],
    breaks: ['one-end'],
  },
]
