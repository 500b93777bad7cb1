/** Every id of a run. An id depends on the place of the work in the run alone, so that doing it again changes nothing. */

/** Event `questions`: image `index` of a step. */
export const imageTaskId = (step: number, index: number): string => `s${step}-i${index}`
/** Task `questioner.images`: images `first` to `last` of a step; that of one image is named as its event. */
export const sliceId = (step: number, first: number, last: number): string =>
  first === last ? imageTaskId(step, first) : `${imageTaskId(step, first)}to${last}`
/** One question and the group of its answers: `answers`, `verdict`. */
export const groupId = (imageTask: string, question: number): string => `${imageTask}-q${question}`
/** Task `reasoner.questions` or `judge.groups`: what follows from another task. That of one group is named as the group. */
export const groupsId = (task: string, groups: readonly { readonly group: string }[]): string =>
  groups.length === 1 ? groups[0]!.group : task
/** Request for the questions about an image, or about those of a task. */
export const askId = (task: string): string => `ask-${task}`
/** Request for the answers of a group, or of those of a task. */
export const answerId = (task: string): string => `answer-${task}`
/** Sample `index` of a request. */
export const completionId = (request: string, index: number): string => `${request}-${index}`
/** Requests of a step that share a forward pass. */
export const cohortId = (role: 'ask' | 'answer', step: number): string => `${role}-s${step}`
/** Gradient of a micro-batch. Names the batch's content: another batch is another task. */
export const gradientId = (step: number, index: number, batch: string): string =>
  `s${step}-m${index}-${batch.slice('sha256-'.length).slice(0, 16)}`
/** Event `version`. */
export const versionId = (version: number): string => `v${version}`
/** Event `step`. */
export const stepId = (step: number): string => `s${step}`
/** Event `eval`. */
export const evalId = (version: number, set: string): string => `v${version}-${set}`

/** The step that an image task or a group belongs to; null for other ids. */
export function stepOf(id: string): number | null {
  const digits = /^s(\d+)-i\d+/.exec(id)?.[1]
  return digits === undefined ? null : Number(digits)
}

/** Bounds what an id from the bus makes one count. */
export const MAX_PER_TASK = 4096
const PLACE = /(?:^|-)s(\d+)-i(\d+)(?:to(\d+))?/

/** The images that a task, a request or an event is about; none for an id of another kind. */
export function imagesOf(id: string): string[] {
  const [, step, first, last = first] = PLACE.exec(id) ?? []
  if (step === undefined) return []
  const count = Number(last) - Number(first) + 1
  if (count < 1 || count > MAX_PER_TASK) return []
  return Array.from({ length: count }, (_, i) => imageTaskId(Number(step), Number(first) + i))
}

const GROUP = /-q\d+$/
/** Whether a task is about one group only, and named as it. */
export const isGroup = (task: string): boolean => GROUP.test(task)
/** The image that a group belongs to, by its event. */
export const imageOf = (group: string): string => group.replace(GROUP, '')

/** Whether a group is among those of a task, as far as their ids tell. */
export const holdsGroup = (task: string, group: string): boolean =>
  isGroup(task) ? task === group : imagesOf(task).includes(imageOf(group))

/** Whether a reply of the model is part of the loop: evaluations ask for versions of their own choice. */
export const isLoopReply = (id: string): boolean => /^(ask|answer)-s\d+-i\d+|^s\d+-m\d+-/.test(id)
