/** Logits under the adapter, the weights with the adapter folded in, and logits under those. */
import { join } from 'node:path'
import { readJson } from '../../io/json-file.ts'
import type { Verified } from '../../losses/verify-grpo.ts'
import { packTrees } from '../../tree/pack.ts'
import { mergeLora } from '../lora.ts'
import type { AdaptedVariant } from './adapter.ts'
import { checksOf, TOLERANCE } from './checks.ts'
import { type GoldenTensors, mergedSchema } from './golden-files.ts'
import { summarise } from './gradients.ts'
import { prepareCase, rootsOf, underStoredNames, type Variant } from './variant.ts'

/** `batch` is the golden rollout batch, which holds the last logits of the case `single`. */
export async function* verifyMerged(
  variant: Variant,
  adapted: AdaptedVariant,
  batch: GoldenTensors,
): AsyncGenerator<Verified> {
  const check = checksOf('train/merged')
  const golden = await readJson(join(variant.dir, 'train', 'merged.json'), mergedSchema)
  const { adapter } = adapted
  const merged = mergeLora(variant.network.weights, adapter)
  const changed = Object.entries(merged).filter(([name, t]) => t !== variant.network.weights[name])
  const stored = underStoredNames(variant, Object.fromEntries(changed))
  yield check.same('names of merged weights', Object.keys(stored).toSorted(), Object.keys(golden.weights).toSorted())
  for (const [name, summary] of Object.entries(golden.weights)) {
    const own = stored[name]
    if (!own || own.dims.join() !== summary.shape.join()) {
      yield check.within(`${name}: shape`, Infinity, 0)
      continue
    }
    const { l2, sum, first16 } = summarise(own.data)
    const spread = TOLERANCE.weights * Math.sqrt(own.data.length)
    yield check.close(`${name}: first16`, first16, summary.first16, TOLERANCE.weights)
    yield check.close(`${name}: l2`, [l2], [summary.l2], spread)
    yield check.close(`${name}: sum`, [sum], [summary.sum], spread)
  }
  const { inputs, features } = await prepareCase(variant, 'single')
  const tree = packTrees(rootsOf(variant, [inputs]), variant.architecture.imageTokenId)
  const last = [inputs.inputIds.length - 1]
  const underAdapter = await adapted.logits.run(tree, features, adapter.weights, last)
  const underMerged = await variant.logits.run(tree, features, merged, last)
  yield check.close('adapter logits', underAdapter, batch.numbers('adapter_logits_single_last'), TOLERANCE.logits)
  yield check.close('merged logits', underMerged, batch.numbers('merged_logits_single_last'), TOLERANCE.logits)
  yield check.close('merged = adapter logits', underMerged, underAdapter, TOLERANCE.logits)
  const gap = golden.max_abs_gap_to_adapter_logits
  yield check.within('max_abs_gap_to_adapter_logits', gap >= 0 ? gap : Infinity, TOLERANCE.logits)
}
