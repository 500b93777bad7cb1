/** Supervised fine-tuning: loss and the gradient of every parameter, the vision tower included. */
import { join } from 'node:path'
import { readJson } from '../../io/json-file.ts'
import { isMissing } from '../../io/json-file.ts'
import { stat } from 'node:fs/promises'
import type { Verified } from '../../losses/verify-grpo.ts'
import { packTrees } from '../../tree/pack.ts'
import { type Checks, checksOf, TOLERANCE } from './checks.ts'
import { GoldenTensors, sftSchema } from './golden-files.ts'
import { compareGradients, compareGradientSummaries } from './gradients.ts'
import { paddedPositions, padRight } from './padding.ts'
import { positionsOf, type PreparedCase, prepareCase, rootsOf, underStoredNames, type Variant } from './variant.ts'

/** The cases whose prompts the rows continue. */
const ROWS = ['single', 'interleaved']
const IGNORED = -100

export async function* verifySft(variant: Variant): AsyncGenerator<Verified> {
  const check = checksOf('train/sft')
  const golden = await readJson(join(variant.dir, 'train', 'sft.json'), sftSchema)
  const batch = await GoldenTensors.open(join(variant.dir, 'train', 'sft_batch.safetensors'))
  const cases: PreparedCase[] = []
  for (const name of ROWS) cases.push(await prepareCase(variant, name))
  const completions = cases.map((_, i) => batch.row('labels', i).filter((label) => label !== IGNORED))
  yield* compareBatch(check, variant, cases, completions, batch)

  const { network, architecture } = variant
  const inputs = cases.map((c) => c.inputs)
  const roots = rootsOf(variant, inputs, (i) => [{ tokens: [], completions: [completions[i]!] }])
  const tokens = completions.flat().length
  yield check.same('label_tokens', [tokens], [golden.label_tokens])
  const weights = new Float32Array(tokens).fill(1 / tokens)
  const pictures = inputs.flatMap((i) => i.pictures)
  const image = { kind: 'pixels', input: architecture.vision.join(pictures) } as const
  const own = await network.supervisedGradient(packTrees(roots, architecture.imageTokenId), image, weights)
  yield check.close('loss', [own.loss], [golden.loss], TOLERANCE.loss)
  yield check.close('loss_float64', [own.loss], [golden.loss_float64], TOLERANCE.loss)
  const gradients = underStoredNames(variant, own.gradients)
  const unused = Object.keys(underStoredNames(variant, network.weights)).filter((name) => !(name in gradients))
  yield check.same('without_gradient', unused.toSorted(), golden.without_gradient.toSorted())
  yield* compareGradientSummaries(check, gradients, golden.grads)
  const whole = join(variant.dir, 'train', 'sft_grads.safetensors')
  if (await exists(whole)) yield* compareGradients(check, gradients, await GoldenTensors.open(whole))
}

function* compareBatch(
  check: Checks,
  variant: Variant,
  cases: readonly PreparedCase[],
  completions: readonly (readonly number[])[],
  batch: GoldenTensors,
): Generator<Verified> {
  const prompts = cases.map((c) => c.inputs.inputIds)
  const padded = padRight(
    prompts.map((prompt, i) => [...prompt, ...completions[i]!]),
    variant.architecture.padTokenId ?? 0,
  )
  const labels = prompts.map((prompt, i) => [...prompt.map(() => IGNORED), ...completions[i]!])
  yield check.same('input_ids', padded.ids.flat(), batch.numbers('input_ids'))
  yield check.same('attention_mask', padded.mask.flat(), batch.numbers('attention_mask'))
  const sequences = cases.map(({ inputs }, i) => positionsOf(variant, inputs, completions[i]))
  yield check.same('position_ids', paddedPositions(padded.mask, sequences), batch.numbers('position_ids'))
  yield check.same('labels', padRight(labels, IGNORED).ids.flat(), batch.numbers('labels'))
  const ends = completions.map((completion) => variant.architecture.eosTokenIds.includes(completion.at(-1) ?? -1))
  yield check.same('completions end', ends, [true, true])
  yield check.same('tensors that nothing was compared with', batch.unread(), [])
}

async function exists(file: string): Promise<boolean> {
  try {
    await stat(file)
    return true
  } catch (error) {
    if (isMissing(error)) return false
    throw error
  }
}
