/** Recomputes a goldens folder with the product's own code and compares every quantity. */
import { join } from 'node:path'
import { reasonOf } from '../models/io/json-file.ts'
import { type Verified, verifyGrpo } from '../models/losses/verify-grpo.ts'
import type { SessionOptions } from '../models/runtime/session.ts'
import { verifyVisionPositions } from '../models/vlm/smolvlm/verify-positions.ts'
import { GoldenImages } from '../models/vlm/verify/golden-images.ts'
import { verifyVariant } from '../models/vlm/verify/verify.ts'
import { findGoldens, type GoldenUnit, POSITIONS_FILE } from './verify/find-goldens.ts'
import { verifyDigests } from './verify/published.ts'
import { verifyImages } from './verify/verify-images.ts'

/** A folder that cannot be verified, and why. */
export interface Skipped {
  readonly event: 'skipped'
  readonly case: string
  readonly reason: string
}

export interface VerifyOptions extends SessionOptions {
  /** Compare the files of the published set by digest as well; default true. */
  readonly digests?: boolean
}

export type VerifyLine = Verified | Skipped

/** A folder lacks what its verification needs. */
export class NoGoldensError extends Error {
  override name = 'NoGoldensError'
}

/**
 * One line per quantity of everything under `dir`, a goldens folder or any family or variant in it; cases are named by
 * their path from the root of the goldens. What cannot be computed fails with the quantity `error`.
 *
 * @throws NoGoldensError when `dir` holds no goldens at all.
 */
export async function* verifyGoldens(
  dir: string,
  { digests = true, ...options }: VerifyOptions = {},
): AsyncGenerator<VerifyLine> {
  const { root, units } = await findGoldens(dir)
  if (units.length === 0)
    throw new NoGoldensError(`${dir} holds no goldens: no checkpoint/, cases.json or images.json in it or below`)
  if (digests) yield* verifyDigests(units, root)
  for (const unit of units) {
    if (unit.kind === 'unsupported') yield { event: 'skipped', case: unit.label, reason: unit.reason }
    else yield* verifyUnit(unit, root, options)
  }
}

async function* verifyUnit(unit: GoldenUnit, root: string | null, options: SessionOptions): AsyncGenerator<Verified> {
  try {
    for await (const line of quantities(unit, root, options)) yield { ...line, case: `${unit.label}/${line.case}` }
  } catch (error) {
    const failed = { quantity: 'error', maxError: Infinity, tolerance: 0, pass: false }
    yield { case: unit.label, ...failed, message: reasonOf(error) }
  }
}

async function* quantities(unit: GoldenUnit, root: string | null, options: SessionOptions): AsyncGenerator<Verified> {
  switch (unit.kind) {
    case 'variant':
      if (root === null) throw new NoGoldensError('no images/images.json in this folder or above it; copy it along')
      return yield* verifyVariant(unit.dir, await GoldenImages.open(join(root, 'images')), options)
    case 'grpo':
      return yield* verifyGrpo(unit.dir, options)
    case 'images':
      return yield* verifyImages(await GoldenImages.open(unit.dir))
    case 'vision-positions':
      return yield* verifyVisionPositions(join(unit.dir, POSITIONS_FILE))
    case 'unsupported':
    case 'unreadable':
      throw new NoGoldensError(unit.reason)
  }
}
