/**
 * The questions of the world: one table of phrasings drives both saying and parsing, so that a question that the tiny
 * model invents can be checked against the scene.
 */
import type { Random } from './random.ts'
import { COLORS, COLUMNS, objectAt, ROWS, SHAPES, SIZES } from './scene.ts'
import type { Color, Column, Row, Scene, SceneObject, Shape } from './scene.ts'

export const NUMBERS = ['zero', 'one', 'two', 'three', 'four'] as const
export const QUESTION_TYPES = [
  'color_of',
  'shape_of',
  'color_at',
  'shape_at',
  'count_all',
  'count_color',
  'count_shape',
  'exists',
  'relation',
  'size',
] as const
export type QuestionType = (typeof QUESTION_TYPES)[number]

/** Ways to say that one thing lies to some side of another. */
const RELATIONS = {
  left: ['left of', 'to the left of'],
  right: ['right of', 'to the right of'],
  above: ['above', 'higher than'],
  below: ['below', 'lower than'],
} as const
export type Relation = keyof typeof RELATIONS
const RELATION_NAMES = Object.keys(RELATIONS) as Relation[]

/** What a question asks, without its wording. */
export type Query =
  | { readonly type: 'color_of' | 'count_shape' | 'size'; readonly shape: Shape }
  | { readonly type: 'shape_of' | 'count_color'; readonly color: Color }
  | { readonly type: 'color_at' | 'shape_at'; readonly row: Row; readonly column: Column }
  | { readonly type: 'count_all' }
  | { readonly type: 'exists'; readonly color: Color; readonly shape: Shape }
  | { readonly type: 'relation'; readonly shape: Shape; readonly relation: Relation; readonly other: Shape }

/** Wordings, with slots in braces; `{shapes}` is the plural, `{a}` the article that fits the next word. */
const PHRASES: Readonly<Record<QuestionType, readonly string[]>> = {
  color_of: ['what color is the {shape}', 'which color is the {shape}', 'what is the color of the {shape}'],
  shape_of: ['what shape is the {color} object', 'which shape is {color}', 'what is the {color} object'],
  color_at: ['what color is the {row} {column} object', 'what color is at the {row} {column}'],
  shape_at: ['what shape is the {row} {column} object', 'what shape is at the {row} {column}'],
  count_all: ['how many objects are there', 'how many objects', 'how many shapes do you see'],
  count_color: ['how many {color} objects are there', 'how many objects are {color}', 'how many {color} objects'],
  count_shape: ['how many {shapes} are there', 'how many {shapes} do you see', 'how many {shapes}'],
  exists: ['is there {a} {color} {shape}', 'do you see {a} {color} {shape}'],
  relation: ['is the {shape} {relation} the {other}'],
  size: ['what size is the {shape}', 'how big is the {shape}', 'is the {shape} small or big'],
}

const plural = (shape: string): string => (shape === 'cross' ? 'crosses' : `${shape}s`)
const PLURALS: ReadonlyMap<string, Shape> = new Map(SHAPES.map((s) => [plural(s), s]))

const SLOTS: Readonly<Record<string, readonly string[]>> = {
  shape: SHAPES,
  other: SHAPES,
  shapes: [...PLURALS.keys()],
  color: COLORS,
  row: ROWS,
  column: COLUMNS,
  relation: Object.values(RELATIONS).flat(),
  a: ['a', 'an'],
}

const PARSERS = QUESTION_TYPES.flatMap((type) =>
  PHRASES[type].map((phrase) => ({
    type,
    pattern: new RegExp(
      `^${phrase.replace(/\{(\w+)\}/g, (_, slot: string) => `(?<${slot}>${SLOTS[slot]?.join('|')})`)}$`,
    ),
  })),
)

/** The categories of answers; an answer belongs to one of them, or is `none` (what is asked about is not there). */
export const ANSWERS = [COLORS, SHAPES, NUMBERS, SIZES, ['yes', 'no']] as const satisfies readonly (readonly string[])[]
export const NONE = 'none'

/** Every word that questions and answers are made of. */
export const GRAMMAR_WORDS: readonly string[] = [
  ...new Set(
    [...Object.values(PHRASES).flat(), ...Object.values(SLOTS).flat(), ...ANSWERS.flat(), NONE]
      .flatMap((text) => text.replace(/\{\w+\}/g, '').split(' '))
      .filter((word) => word !== ''),
  ),
]

/** Puts a query into words, ending in `?`; the wording is random. */
export function say(query: Query, random: Random): string {
  const slots: Record<string, string> = { ...query }
  if ('shape' in query) slots['shapes'] = plural(query.shape)
  if ('relation' in query) slots['relation'] = random.pick(RELATIONS[query.relation])
  if ('color' in query) slots['a'] = query.color === 'orange' ? 'an' : 'a'
  return random.pick(PHRASES[query.type]).replace(/\{(\w+)\}/g, (_, slot: string) => slots[slot] as string) + '?'
}

/** The query behind a question in any wording, with any spacing and case; null when it is not of the grammar. */
export function parse(question: string): Query | null {
  const text = question.trim().toLowerCase().replace(/\s+/g, ' ')
  if (!text.endsWith('?')) return null
  const words = text.slice(0, -1).trimEnd()
  for (const { type, pattern } of PARSERS) {
    const match = pattern.exec(words)
    if (!match) continue
    const groups = match.groups ?? {}
    const shape = groups['shapes'] === undefined ? groups['shape'] : PLURALS.get(groups['shapes'])
    const relation = RELATION_NAMES.find((name) => RELATIONS[name].some((wording) => wording === groups['relation']))
    // The patterns admit exactly the values of the slots' types.
    return { ...groups, shape, relation, type } as unknown as Query
  }
  return null
}

/** The true answer; `none` when what is asked about is absent, null when the question is ambiguous. */
export function answerOf(query: Query, scene: Scene): string | null {
  switch (query.type) {
    case 'color_of':
      return common(withShape(scene, query.shape), (o) => o.color)
    case 'size':
      return common(withShape(scene, query.shape), (o) => o.size)
    case 'shape_of':
      return common(withColor(scene, query.color), (o) => o.shape)
    case 'color_at':
      return objectAt(scene, query.row, query.column)?.color ?? NONE
    case 'shape_at':
      return objectAt(scene, query.row, query.column)?.shape ?? NONE
    case 'count_all':
      return count(scene)
    case 'count_color':
      return count(withColor(scene, query.color))
    case 'count_shape':
      return count(withShape(scene, query.shape))
    case 'exists':
      return withShape(scene, query.shape).some((o) => o.color === query.color) ? 'yes' : 'no'
    case 'relation':
      return related(query, scene)
  }
}

/** Checks a question of anyone's making: its type and true answer (null = ambiguous), or null when not of the grammar. */
export function truth(question: string, scene: Scene): { type: QuestionType; answer: string | null } | null {
  const query = parse(question)
  return query && { type: query.type, answer: answerOf(query, scene) }
}

const withShape = (scene: Scene, shape: Shape): Scene => scene.filter((o) => o.shape === shape)
const withColor = (scene: Scene, color: Color): Scene => scene.filter((o) => o.color === color)
const count = (objects: Scene): string => NUMBERS[objects.length] as string

/** What the objects agree on: `none` without objects, null when they differ. */
function common(objects: Scene, of: (o: SceneObject) => string): string | null {
  const values = new Set(objects.map(of))
  if (values.size === 0) return NONE
  return values.size === 1 ? ([...values][0] as string) : null
}

/** Side by side is not above, one above the other is not left: cells decide, not the jitter within them. */
function related(query: Query & { type: 'relation' }, scene: Scene): string | null {
  const [a, ...moreA] = withShape(scene, query.shape)
  const [b, ...moreB] = withShape(scene, query.other)
  if (!a || !b) return NONE
  if (a === b || moreA.length > 0 || moreB.length > 0) return null
  const holds: Record<Relation, boolean> = {
    left: a.column === 'left' && b.column === 'right',
    right: a.column === 'right' && b.column === 'left',
    above: a.row === 'top' && b.row === 'bottom',
    below: a.row === 'bottom' && b.row === 'top',
  }
  return holds[query.relation] ? 'yes' : 'no'
}

/** Every query of a type. */
export function queriesOf(type: QuestionType): readonly Query[] {
  switch (type) {
    case 'color_of':
    case 'count_shape':
    case 'size':
      return SHAPES.map((shape) => ({ type, shape }))
    case 'shape_of':
    case 'count_color':
      return COLORS.map((color) => ({ type, color }))
    case 'color_at':
    case 'shape_at':
      return ROWS.flatMap((row) => COLUMNS.map((column) => ({ type, row, column })))
    case 'count_all':
      return [{ type }]
    case 'exists':
      return COLORS.flatMap((color) => SHAPES.map((shape) => ({ type, color, shape })))
    case 'relation':
      return SHAPES.flatMap((shape) =>
        SHAPES.filter((other) => other !== shape).flatMap((other) =>
          RELATION_NAMES.map((relation) => ({ type, shape, relation, other })),
        ),
      )
  }
}
