/** Held-out accuracy of a model in this process, without a bus. */
import type { EvalQuestion } from '../../actors/eval-set.ts'
import { extractAnswer } from '../../actors/rewards/normalize.ts'
import { scoreAnswers } from '../../actors/scoring.ts'
import type { EvalScore } from '../../actors/scoring.ts'
import type { GenerateRequest, ImageSource, Model } from '../../models/model.ts'
import { imageFromFile } from './image-source.ts'

export interface EvaluateOptions {
  /** The Reasoner's prompt, with `{question}` in it. */
  readonly prompt: string
  readonly maxNewTokens: number
  readonly samples: number
  readonly seed: number
  readonly signal: AbortSignal
}

/** Questions in one call of `generate`: enough to fill a device, few enough to stop soon. */
const QUESTIONS_PER_CALL = 256

/** Asks every question once greedily and `samples` times at temperature 1. Rejects with the signal's reason. */
export async function evaluateModel(
  model: Model,
  questions: readonly EvalQuestion[],
  options: EvaluateOptions,
): Promise<EvalScore> {
  const answered = []
  for (let start = 0; start < questions.length; start += QUESTIONS_PER_CALL) {
    options.signal.throwIfAborted()
    const part = questions.slice(start, start + QUESTIONS_PER_CALL)
    const images = new Map(await Promise.all([...new Set(part.map((q) => q.image))].map(load)))
    const request = (i: number, samples: number, temperature: number): GenerateRequest => ({
      key: `eval-${start + i}-${temperature === 0 ? 'greedy' : 'samples'}`,
      image: images.get(part[i]!.image)!,
      prompt: options.prompt.replaceAll('{question}', () => part[i]!.question),
      samples,
      maxNewTokens: options.maxNewTokens,
      temperature,
      seed: options.seed,
    })
    // One call, so that everything asked about an image shares its prefix.
    const replies = await model.generate(part.flatMap((_, i) => [request(i, 1, 0), request(i, options.samples, 1)]))
    for (const [i, { type, accepted }] of part.entries()) {
      answered.push({
        type,
        accepted,
        greedy: extractAnswer(replies[2 * i]!.samples[0]!),
        samples: replies[2 * i + 1]!.samples.map(extractAnswer),
      })
    }
  }
  return scoreAnswers(answered)
}

const load = async (file: string): Promise<[string, ImageSource]> => [file, await imageFromFile(file)]
