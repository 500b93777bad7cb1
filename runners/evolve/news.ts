/** From records of the log to what the terminal shows. */
import type { RecorderRecord } from '../../actors/recorder.ts'
import type { GalleryLine } from '../../actors/run-files.ts'
import type { EvolveEvent } from '../cli/events.ts'

/** What people are told of a record, if anything. */
export function newsOf({ event, message }: RecorderRecord, steps: number): EvolveEvent | null {
  switch (event) {
    case 'step': {
      const { step, weights: version, seconds, metrics } = message.data
      return { event, step, steps, version, seconds, metrics }
    }
    case 'eval': {
      const { set, weights: version, n, probe, mean1, greedy, maj } = message.data
      return { event, set, version, n, probe, mean1, greedy, maj }
    }
    case 'alarm':
      return { event, ...message.data }
    case 'questions':
    case 'answers':
    case 'verdict':
    case 'dead':
    case 'version':
      return null
  }
}

/** A question of a step that says something: well-formed, and the answers differ if any do. */
export function sampleOf(lines: readonly GalleryLine[]): EvolveEvent | null {
  const answered = lines.filter((line) => line.reasoner !== null)
  const line = answered.find((l) => l.answers.length > 1 && l.reasoner?.keep) ?? answered[0]
  if (!line?.reasoner) return null
  const { step, name, question, silver, reasoner, answers } = line
  return {
    event: 'sample',
    step,
    image: name,
    question,
    silver,
    answers: answers.map(({ text, count }) => ({ text, count })),
    agreement: reasoner.agreement,
  }
}
