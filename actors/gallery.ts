/** Questions of a step for people to look at. Pure. */
import type { EventData, Question } from '../bus/messages.ts'
import type { GalleryLine } from './run-files.ts'
import type { StepBatch } from './step-book.ts'

interface Picked {
  readonly image: EventData<'questions'>
  readonly question: Question
}

/** At most `most` judged questions, spread evenly over the step. */
export function pickGroups({ images, verdicts }: StepBatch, most: number): Picked[] {
  const all = [...images.values()]
    .toSorted((a, b) => a.index - b.index)
    .flatMap((image) => image.questions.map((question) => ({ image, question })))
    .filter(({ question }) => verdicts.has(question.group))
  if (all.length <= most) return all
  return Array.from({ length: most }, (_, i) => all[Math.floor((i * all.length) / most)]!)
}

/** A line of `gallery.jsonl`; null when the question has no verdict. */
export function galleryLine(
  { step, answers, verdicts }: StepBatch,
  image: EventData<'questions'>,
  { group, question, silver, type, malformed, completion }: Question,
  picture: string,
): GalleryLine | null {
  const verdict = verdicts.get(group)
  if (!verdict) return null
  const { questioner, reasoner } = verdict
  return {
    step,
    group,
    weights: image.weights,
    name: image.name,
    picture,
    question: malformed === null ? question : completion.text,
    silver,
    type,
    malformed,
    answers: countAnswers(answers.get(group), reasoner?.rewards ?? []),
    questioner,
    reasoner: reasoner && {
      keep: reasoner.keep,
      dropped: reasoner.dropped,
      agreement: reasoner.agreement,
      majority: reasoner.majority,
      share: reasoner.share,
    },
  }
}

/** Distinct answers with their first reward, most frequent first. */
function countAnswers(answers: EventData<'answers'> | undefined, rewards: readonly number[]): GalleryLine['answers'] {
  const counted = new Map<string | null, { text: string | null; count: number; reward: number }>()
  for (const [g, text] of (answers?.parsed ?? []).entries()) {
    const known = counted.get(text)
    if (known) known.count++
    else counted.set(text, { text, count: 1, reward: rewards[g] ?? 0 })
  }
  return [...counted.values()].toSorted((a, b) => b.count - a.count)
}
