/** Random questions about a scene, with their true answers. */
import { answerOf, ANSWERS, NONE, queriesOf, QUESTION_TYPES, say } from './grammar.ts'
import type { Query, QuestionType } from './grammar.ts'
import type { Random } from './random.ts'
import type { Scene } from './scene.ts'

export interface MadeQuestion {
  readonly type: QuestionType
  readonly question: string
  readonly answer: string
}

export interface QuestionOptions {
  /** Default: any that the scene allows, all about equally often. */
  readonly type?: QuestionType
  /** Share of questions about something that is not there (answer `none` or `zero`); default 0.12. */
  readonly absentShare?: number
}

/** Relations need two things of unique shapes, which half of the scenes lack: drawn twice, they come up like the others. */
const DRAWS: readonly QuestionType[] = [...QUESTION_TYPES, 'relation']

const QUERIES = new Map(QUESTION_TYPES.map((type) => [type, queriesOf(type)]))

/**
 * A question with one true answer. Within a type the answers that the scene allows are equally likely, and then the
 * queries with that answer, so that yes and no balance. Null when the scene allows no question of the type asked for.
 */
export function makeQuestion(scene: Scene, random: Random, options: QuestionOptions = {}): MadeQuestion | null {
  const types = options.type ? [options.type] : random.shuffle(DRAWS)
  for (const type of types) {
    const made = ofType(type, scene, random, options.absentShare ?? 0.12)
    if (made) return made
  }
  return null
}

function ofType(type: QuestionType, scene: Scene, random: Random, absentShare: number): MadeQuestion | null {
  const present = new Map<string, Query[]>()
  const absent: { query: Query; answer: string }[] = []
  for (const query of QUERIES.get(type) as readonly Query[]) {
    if (!concerns(query, scene)) continue
    const answer = answerOf(query, scene)
    if (answer === null) continue
    if (answer === NONE || answer === 'zero') absent.push({ query, answer })
    else if (present.has(answer)) present.get(answer)?.push(query)
    else present.set(answer, [query])
  }
  if (present.size === 0) return null
  const [answer, queries] = random.pick([...present])
  const chosen =
    absent.length > 0 && random.chance(absentShare) ? random.pick(absent) : { query: random.pick(queries), answer }
  return { type, question: say(chosen.query, random), answer: chosen.answer }
}

/** Of the questions that name two things, only those are worth asking where one of the things is there. */
function concerns(query: Query, scene: Scene): boolean {
  if (query.type === 'exists') return scene.some((o) => o.color === query.color || o.shape === query.shape)
  if (query.type === 'relation') return scene.some((o) => o.shape === query.shape || o.shape === query.other)
  return true
}

/** Another answer of the same category drawn at random (possibly the same); `none` stays. */
export function blur(answer: string, random: Random): string {
  const category = ANSWERS.find((words: readonly string[]) => words.includes(answer))
  return category ? random.pick<string>(category) : answer
}
