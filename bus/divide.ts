/**
 * Tasks of several items. They cost the bus one message instead of many, but they must not share their fate: what cannot
 * be done together is divided, and each item then has its own tries and, if need be, its own dead letter.
 */
import type { Task, TaskKind } from './messages.ts'

export interface Item<K extends TaskKind> {
  /** The id of the item's result, which becomes that of its task. */
  readonly id: string
  readonly task: Task<K>
}

type Divide = { readonly [K in TaskKind]?: (task: Task<K>) => readonly Item<K>[] }

const DIVIDE: Divide = {
  'questioner.images': (task) => task.images.map((image) => ({ id: image.id, task: { ...task, images: [image] } })),
  'reasoner.questions': (task) =>
    task.questions.map((question) => ({ id: question.group, task: { ...task, questions: [question] } })),
  'judge.groups': (task) => task.groups.map((group) => ({ id: group.group, task: { ...task, groups: [group] } })),
}

/** The items of a task as tasks of their own; empty for one that cannot be divided any more. */
export function divide<K extends TaskKind>(kind: K, task: Task<K>): readonly Item<K>[] {
  const items = DIVIDE[kind]?.(task) ?? []
  return items.length > 1 ? items : []
}
