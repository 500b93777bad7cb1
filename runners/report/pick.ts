/** Which questions of a run the page shows: a spread over the whole run, all kinds of verdicts, bounded. */
import type { GalleryLine } from '../../actors/run-files.ts'

/** About 2–3 MB of page with tiny pictures. */
const MOST = 480

/**
 * The same number of questions from each step that has some, evenly spread in it; when there are too many steps, evenly
 * spread ones, the first and the last among them. In order of steps.
 */
export function pickGallery(lines: readonly GalleryLine[], most = MOST): GalleryLine[] {
  const byStep = new Map<number, GalleryLine[]>()
  for (const line of firstOfEach(lines)) byStep.set(line.step, [...(byStep.get(line.step) ?? []), line])
  const steps = spread(
    [...byStep.keys()].sort((a, b) => a - b),
    most,
  )
  const each = Math.max(1, Math.floor(most / Math.max(1, steps.length)))
  return steps.flatMap((step) => spread(byStep.get(step)!, each))
}

/** A resumed run may write a group twice; as in the log, the first one counts. */
function firstOfEach(lines: readonly GalleryLine[]): GalleryLine[] {
  const seen = new Set<string>()
  return lines.filter(({ group }) => !seen.has(group) && seen.add(group))
}

function spread<T>(values: readonly T[], most: number): T[] {
  if (values.length <= most) return [...values]
  return Array.from({ length: most }, (_, i) => values[Math.round((i * (values.length - 1)) / Math.max(1, most - 1))]!)
}
