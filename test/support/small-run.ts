/** Settings of a run that takes seconds. */
export const settings = (...sets: readonly string[]): string[] => sets.flatMap((set) => ['--set', set])

export const SMALL = settings(
  'groups.images=4',
  'groups.answers=4',
  'groups.perTask=2',
  'world.images=12',
  'world.evalImages=2',
  'eval.samples=2',
)

/** The same, learning from the first step on. */
export const SMALL_LEARNING = [...SMALL, ...settings('optimizer.warmup=0', 'optimizer.lr=1e-4')]
