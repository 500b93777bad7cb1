/** What a picture shows: one to four objects, each in its own cell of a 2×2 grid. Appearance is chosen when drawing. */
import type { Random } from './random.ts'

export const SHAPES = ['circle', 'square', 'rectangle', 'triangle', 'star', 'cross', 'ring'] as const
/** The eleven basic colour terms of English (Berlin and Kay) and teal. */
export const COLORS = [
  'red',
  'green',
  'blue',
  'yellow',
  'purple',
  'orange',
  'pink',
  'brown',
  'gray',
  'black',
  'white',
  'teal',
] as const
export const SIZES = ['small', 'big'] as const
export const ROWS = ['top', 'bottom'] as const
export const COLUMNS = ['left', 'right'] as const

export type Shape = (typeof SHAPES)[number]
export type Color = (typeof COLORS)[number]
export type Size = (typeof SIZES)[number]
export type Row = (typeof ROWS)[number]
export type Column = (typeof COLUMNS)[number]

export interface SceneObject {
  readonly row: Row
  readonly column: Column
  readonly shape: Shape
  readonly color: Color
  readonly size: Size
}

/** Objects in reading order. */
export type Scene = readonly SceneObject[]

/** The four cells in reading order. */
export const CELLS = ROWS.flatMap((row) => COLUMNS.map((column) => ({ row, column })))

/** Chance that an object takes the shape (and, independently, the colour) of another one: makes counts of two and more common. */
const REPEAT = 0.25

/** A random scene; numbers of objects, cells, sizes and (but for repeats) shapes and colours are uniform. */
export function randomScene(random: Random): Scene {
  const count = 1 + random.integer(4)
  const cells = new Set(random.shuffle(CELLS).slice(0, count))
  const objects: SceneObject[] = []
  for (const cell of CELLS.filter((c) => cells.has(c))) {
    const repeat = <T>(of: (o: SceneObject) => T, fresh: readonly T[]): T =>
      objects.length > 0 && random.chance(REPEAT) ? of(random.pick(objects)) : random.pick(fresh)
    objects.push({
      ...cell,
      shape: repeat<Shape>((o) => o.shape, SHAPES),
      color: repeat<Color>((o) => o.color, COLORS),
      size: random.pick(SIZES),
    })
  }
  return objects
}

/** The object in a cell, if any. */
export function objectAt(scene: Scene, row: Row, column: Column): SceneObject | undefined {
  return scene.find((o) => o.row === row && o.column === column)
}
