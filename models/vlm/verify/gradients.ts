/** Comparison of gradients: whole tensors, or what is stored of them. */
import type { Verified } from '../../losses/verify-grpo.ts'
import type { Weights } from '../../tensor.ts'
import { type Checks, largest, largestDifference, TOLERANCE } from './checks.ts'
import type { GoldenSummary, GoldenTensors } from './golden-files.ts'

/** Norm, sum and first values in double precision. */
export function summarise(data: Float32Array): Omit<GoldenSummary, 'shape'> {
  let [squares, sum] = [0, 0]
  for (const x of data) {
    squares += x * x
    sum += x
  }
  return { l2: Math.sqrt(squares), sum, first16: [...data.subarray(0, 16)] }
}

/**
 * Every element against max(largest of the tensor, 1e-3 · largest of all): a gradient that is zero by algebra (a key bias
 * under softmax) holds rounding noise.
 */
export function* compareGradients(check: Checks, own: Weights, golden: GoldenTensors): Generator<Verified> {
  const names = golden.names()
  yield check.same('names of gradients', Object.keys(own).toSorted(), names.toSorted())
  const top = Math.max(...names.map((name) => largest(golden.numbers(name))))
  for (const name of names) {
    const values = golden.numbers(name)
    const gradient = own[name]
    const same = gradient?.dims.join() === golden.tensor(name).dims.join()
    const error = same ? largestDifference(gradient!.data, values) / Math.max(largest(values), 1e-3 * top) : Infinity
    yield check.within(`gradient of ${name}`, error, TOLERANCE.gradient)
  }
}

/** Shape, first values, norm and sum of every gradient. */
export function* compareGradientSummaries(
  check: Checks,
  own: Weights,
  golden: Readonly<Record<string, GoldenSummary>>,
): Generator<Verified> {
  yield check.same('names of gradient summaries', Object.keys(own).toSorted(), Object.keys(golden).toSorted())
  const top = Math.max(...Object.values(own).map(({ data }) => largest(data)))
  const topNorm = Math.max(...Object.values(golden).map(({ l2 }) => l2))
  for (const [name, stored] of Object.entries(golden)) {
    const gradient = own[name]
    if (!gradient || gradient.dims.join() !== stored.shape.join()) {
      yield check.within(`gradient of ${name}: shape`, Infinity, 0)
      continue
    }
    const { l2, sum, first16 } = summarise(gradient.data)
    const first = largestDifference(first16, stored.first16) / Math.max(largest(gradient.data), 1e-3 * top)
    yield check.within(`gradient of ${name}: first16`, first, TOLERANCE.gradient)
    const norm = TOLERANCE.gradient * stored.l2 + 1e-6 * topNorm
    yield check.close(`gradient of ${name}: l2`, [l2], [stored.l2], norm)
    yield check.close(`gradient of ${name}: sum`, [sum], [stored.sum], norm * Math.sqrt(gradient.data.length))
  }
}
