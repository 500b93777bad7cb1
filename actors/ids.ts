/** Every id of a run. An id depends on the place of the work in the run alone, so that doing it again changes nothing. */

/** Task `questioner.image` and event `questions`: image `index` of a step. */
export const imageTaskId = (step: number, index: number): string => `s${step}-i${index}`
/** One question and the group of its answers: `reasoner.question`, `judge.group`, `answers`, `verdict`. */
export const groupId = (imageTask: string, question: number): string => `${imageTask}-q${question}`
/** Request for the questions about an image. */
export const askId = (imageTask: string): string => `ask-${imageTask}`
/** Request for the answers of a group. */
export const answerId = (group: string): string => `answer-${group}`
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

/** Whether a reply of the model is part of the loop: evaluations ask for versions of their own choice. */
export const isLoopReply = (id: string): boolean => /^(ask|answer)-s\d+-i\d+|^s\d+-m\d+-/.test(id)
