/** From which cosine on two short answers mean something alike, for a model of which nobody has said it. */

/**
 * Raw cosines of short answers are high even for answers that exclude each other ('red', 'blue'), so a cosine counts
 * only above `zero`, growing linearly to 1 at `one`.
 */
export interface Calibration {
  readonly zero: number
  readonly one: number
}

/** Answers of one kind exclude each other. */
const EXCLUSIVE = [
  'red orange yellow green blue pink brown black white',
  'circle square triangle star cross heart arrow',
  'one two three four five six seven eight',
  'left right top bottom',
  'small medium big',
  'cat dog horse cow sheep bird elephant bear',
  'car truck bus train boat bicycle',
  'wood metal glass plastic stone',
].map((line) => line.split(' '))

const SYNONYMS = [
  'big large, small little, purple violet, car automobile, sofa couch, bike bicycle, kid child, dog dogs, circle circles',
  'rock stone, plane airplane, ocean sea, tv television, rug carpet, photo picture, boat boats, house home, street road',
]
  .flatMap((line) => line.split(', '))
  .map((pair) => pair.split(' ') as [string, string])

/** Share of the excluding pairs that must count as not alike at all. */
const EXCLUDED = 0.95

/**
 * `one`: half of the synonyms are above. `zero`: half-way to it from where 95 % of the pairs that exclude each other are
 * below. For the shipped model this gives 0.52 and 0.84, where trials chose 0.5 and 0.8. Zero is not below one for a model
 * that does not tell the two kinds of pairs apart.
 */
export async function calibrate(
  embed: (texts: readonly string[]) => Promise<readonly Float32Array[]>,
): Promise<Calibration> {
  const words = [...new Set([...EXCLUSIVE, ...SYNONYMS].flat())]
  const vectors = await embed(words)
  const vectorOf = new Map(words.map((word, i) => [word, vectors[i]!]))
  const cosine = ([a, b]: readonly [string, string]) => {
    const other = vectorOf.get(b)!
    return vectorOf.get(a)!.reduce((sum, x, i) => sum + x * other[i]!, 0)
  }
  const excluding = EXCLUSIVE.flatMap((kind) => kind.flatMap((a, i) => kind.slice(i + 1).map((b) => cosine([a, b]))))
  const one = quantile(SYNONYMS.map(cosine), 0.5)
  const zero = (quantile(excluding, EXCLUDED) + one) / 2
  return { zero: rounded(zero), one: rounded(one) }
}

function quantile(values: readonly number[], share: number): number {
  const sorted = values.toSorted((a, b) => a - b)
  return sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))]!
}

/** To three digits, so that the same model has the same numbers on every machine. */
const rounded = (x: number): number => Number(x.toFixed(3))
