/** Captions and dense labels: what a vision tower and its connector learn from before they are asked anything. */
import { NONE } from './grammar.ts'
import type { Random } from './random.ts'
import { CELLS, COLORS, objectAt, SHAPES, SIZES } from './scene.ts'
import type { Scene } from './scene.ts'

/** `weights[i]` is the weight of `words[i]` in the loss: 0 where a word only says what is described next. */
export interface Caption {
  readonly words: readonly string[]
  readonly weights: readonly number[]
}

/** Share of captions that go through all cells, empty ones too, instead of through the objects. */
const BY_CELL = 0.4

/** A random way of saying everything that a scene shows. */
export function makeCaption(scene: Scene, random: Random): Caption {
  const parts = random.chance(BY_CELL) ? byCell(scene, random) : byObject(scene, random)
  return { words: parts.map(([word]) => word), weights: parts.map(([, weight]) => weight) }
}

type Part = readonly [word: string, weight: number]

function byCell(scene: Scene, random: Random): Part[] {
  return random.shuffle(CELLS).flatMap(({ row, column }): Part[] => {
    const o = objectAt(scene, row, column)
    const place: Part[] = [
      [row, 0],
      [column, 0],
    ]
    if (!o) return [...place, [NONE, 1]]
    return [...place, [o.color, 1], [o.shape, 1], [o.size, 1]]
  })
}

/** The first word of an object is any of several, so it weighs little; the rest follows from it. */
function byObject(scene: Scene, random: Random): Part[] {
  return random.shuffle(scene).flatMap((o): Part[] => {
    const [first, second] = random.chance(0.5) ? [o.shape, o.color] : [o.color, o.shape]
    return [
      [first, 0.2],
      [second, 1],
      [o.size, 1],
      [o.row, 1],
      [o.column, 1],
    ]
  })
}

/** Classes of each dense label: shape, colour, size; class 0 = nothing there. */
export const LABEL_CLASSES = [SHAPES.length + 1, COLORS.length + 1, SIZES.length + 1] as const

/**
 * For every patch, what the object in its cell is: int32 [n, grid², 3] in the order of `LABEL_CLASSES`. `grid` is the
 * number of patches along a side (even): 8 for the patches of the tiny model, 4 for its image tokens.
 */
export function patchLabels(scenes: readonly Scene[], grid: number): Int32Array {
  if (grid % 2 !== 0) throw new RangeError(`a grid of ${grid} patches does not fall into 2×2 cells`)
  const labels = new Int32Array(scenes.length * grid * grid * 3)
  let at = 0
  for (const scene of scenes) {
    const byCell = CELLS.map(({ row, column }) => {
      const o = objectAt(scene, row, column)
      return o ? [1 + SHAPES.indexOf(o.shape), 1 + COLORS.indexOf(o.color), 1 + SIZES.indexOf(o.size)] : [0, 0, 0]
    })
    for (let patch = 0; patch < grid * grid; patch++) {
      const [y, x] = [Math.floor(patch / grid), patch % grid]
      labels.set(byCell[(y < grid / 2 ? 0 : 2) + (x < grid / 2 ? 0 : 1)] as number[], at)
      at += 3
    }
  }
  return labels
}
