/** Recomputes the golden table of patch positions. */
import { z } from 'zod'
import { readJson } from '../../io/json-file.ts'
import type { Verified } from '../../losses/verify-grpo.ts'
import { checksOf } from '../verify/checks.ts'
import { positionBuckets } from './vision-positions.ts'

const bucketsSchema = z.record(z.string(), z.strictObject({ bucket: z.array(z.int()), identity: z.boolean() }))

/** Position buckets of the vision tower, `vision_position_buckets.json`. */
export async function* verifyVisionPositions(file: string): AsyncGenerator<Verified> {
  const check = checksOf('vision_position_buckets')
  const golden = await readJson(file, bucketsSchema)
  for (const [patches, { bucket, identity }] of Object.entries(golden)) {
    const own = positionBuckets(Number(patches), Number(patches))
    yield check.same(`${patches} patches`, own, bucket)
    yield check.same(`${patches} patches: identity`, [own.every((b, i) => b === i)], [identity])
  }
}
