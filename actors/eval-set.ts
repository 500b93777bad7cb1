/** Held-out questions in a JSONL file: `{"image": path relative to the file, "question", "answer" | "answers", "type"?}`. */
import { readFile } from 'node:fs/promises'
import { dirname, resolve } from 'node:path'
import { z } from 'zod'

const lineSchema = z.object({
  image: z.string().min(1),
  question: z.string().min(1),
  answer: z.string().optional(),
  answers: z.array(z.string()).min(1).optional(),
  type: z.string().default('all'),
})

export interface EvalQuestion {
  /** Absolute path. */
  readonly image: string
  readonly question: string
  /** Any of these is right. */
  readonly accepted: readonly string[]
  /** 'all' where the file gives none. */
  readonly type: string
}

/** Says which line of which file is wrong, and how. */
export class EvalSetError extends Error {
  override name = 'EvalSetError'
}

/** Reads and checks a whole file; the images themselves are not opened. */
export async function readEvalSet(file: string): Promise<readonly EvalQuestion[]> {
  const text = await readFile(file, 'utf8').catch((cause: NodeJS.ErrnoException) => {
    const why = cause.code === 'ENOENT' ? 'does not exist' : `cannot be read (${cause.message})`
    throw new EvalSetError(`the held-out file ${file} ${why}`, { cause })
  })
  const questions = text
    .split('\n')
    .map((line, i) => ({ line: line.trim(), where: `${file}:${i + 1}` }))
    .filter(({ line }) => line !== '')
    .map(({ line, where }) => parseLine(line, where, dirname(file)))
  if (questions.length === 0) throw new EvalSetError(`the held-out file ${file} is empty; one JSON object per line`)
  return questions
}

function parseLine(line: string, where: string, folder: string): EvalQuestion {
  let json: unknown
  try {
    json = JSON.parse(line)
  } catch (cause) {
    throw new EvalSetError(`${where} is not JSON: ${(cause as Error).message}`, { cause })
  }
  const parsed = lineSchema.safeParse(json)
  if (!parsed.success) {
    const { path, message } = parsed.error.issues[0]!
    throw new EvalSetError(`${where}: ${path.join('.')}: ${message}`)
  }
  const { image, question, answer, answers, type } = parsed.data
  const accepted = answers ?? (answer === undefined ? [] : [answer])
  if (accepted.length === 0) throw new EvalSetError(`${where}: there is neither "answer" nor "answers"`)
  return { image: resolve(folder, image), question, accepted, type }
}
