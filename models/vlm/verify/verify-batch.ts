/** Prompts of different length in one batch: left-padded in the golden, packed trees in the product. */
import { join } from 'node:path'
import { readJson } from '../../io/json-file.ts'
import type { Verified } from '../../losses/verify-grpo.ts'
import { f32, type HostTensor } from '../../tensor.ts'
import { packTrees, positionBehind } from '../../tree/pack.ts'
import { checksOf, TOLERANCE } from './checks.ts'
import { batchSchema, GoldenTensors } from './golden-files.ts'
import { padLeft, paddedPositions } from './padding.ts'
import { featuresOf, positionsOf, prepareCase, rootsOf, type Variant } from './variant.ts'

export async function* verifyBatch(variant: Variant): AsyncGenerator<Verified> {
  const check = checksOf('batch')
  const golden = await readJson(join(variant.dir, 'batch.json'), batchSchema)
  const tensors = await GoldenTensors.open(join(variant.dir, 'batch.safetensors'))
  const cases = []
  for (const name of golden.cases) cases.push(await prepareCase(variant, name))
  const padded = padLeft(
    cases.map((c) => c.inputs.inputIds),
    golden.pad_token_id,
  )
  yield check.same('pad_token_id', [variant.architecture.padTokenId ?? null], [golden.pad_token_id])
  yield check.same('input_ids', padded.ids.flat(), tensors.numbers('input_ids'))
  yield check.same('attention_mask', padded.mask.flat(), tensors.numbers('attention_mask'))
  const sequences = cases.map((c) => positionsOf(variant, c.inputs))
  yield check.same('position_ids', paddedPositions(padded.mask, sequences), tensors.numbers('position_ids'))
  const roots = rootsOf(
    variant,
    cases.map((c) => c.inputs),
  )
  if (tensors.has('rope_deltas')) {
    const deltas = roots.map((root) => positionBehind(root) - root.prefix.length)
    yield check.same('rope_deltas', deltas, tensors.numbers('rope_deltas'))
  }

  const { network, architecture } = variant
  const features = await featuresOf(
    variant,
    cases.flatMap((c) => c.inputs.pictures),
  )
  const tree = packTrees(roots, architecture.imageTokenId)
  const lasts = roots.map(({ prefix }, i) => i * tree.length + prefix.length - 1)
  const own = await variant.logits.run(tree, features, network.weights, lasts)
  const { vocab } = architecture.text
  const rows = f32(own, [cases.length, vocab])
  yield check.close('logits_last', own, tensors.numbers('logits_last'), TOLERANCE.logits)
  yield check.same('argmax_last', argmaxRows(rows), golden.argmax_last)
  const gap = golden.max_abs_gap_to_single_all_positions
  yield check.within('max_abs_gap_to_single_all_positions', gap >= 0 ? gap : Infinity, TOLERANCE.batched)
  for (const [i, { inputs, features: ownFeatures }] of cases.entries()) {
    const alone = packTrees([{ ...roots[i]!, firstFeature: 0 }], architecture.imageTokenId)
    const single = await variant.logits.run(alone, ownFeatures, network.weights, [inputs.inputIds.length - 1])
    const row = own.subarray(i * vocab, (i + 1) * vocab)
    yield check.close(`batched = single (${golden.cases[i]})`, row, single, TOLERANCE.batched)
  }
  yield check.same('tensors that nothing was compared with', tensors.unread(), [])
}

function argmaxRows({ data, dims }: HostTensor<'float32'>): number[] {
  const [rows, width] = dims as [number, number]
  return Array.from({ length: rows }, (_, r) => {
    const row = data.subarray(r * width, (r + 1) * width)
    return row.reduce((best, x, i) => (x > row[best]! ? i : best), 0)
  })
}
