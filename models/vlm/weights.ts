/** Arithmetic and checks on named weights. */
import { f32, type Weights } from '../tensor.ts'

/** Sum of several sets of the same names, in the given order (a fixed order gives the same bits every time). */
export function addWeights(parts: readonly Weights[]): Weights {
  const [first, ...rest] = parts
  if (!first) return {}
  if (rest.length === 0) return first
  return Object.fromEntries(
    Object.entries(first).map(([name, tensor]) => {
      const sum = Float32Array.from(tensor.data)
      for (const part of rest) {
        const other = part[name]?.data
        if (other?.length !== sum.length) throw new RangeError(`${name}: cannot add tensors of different shapes`)
        addInto(sum, other)
      }
      return [name, f32(sum, tensor.dims)]
    }),
  )
}

/** Kept apart, as `allFinite` is, so that the JIT compiles one tight loop. */
function addInto(sum: Float32Array, other: Float32Array): void {
  for (let i = 0; i < sum.length; i++) sum[i]! += other[i]!
}

/** 0·x is 0 for every finite x and NaN for the others. */
function allFinite(data: Float32Array): boolean {
  let zero = 0
  for (let i = 0; i < data.length; i++) zero += 0 * data[i]!
  return zero === 0
}

/** Throws when names or shapes differ from the expected ones, or a value is not finite. */
export function checkSameShapes(expected: Weights, actual: Weights): void {
  for (const [name, { dims }] of Object.entries(expected)) {
    const tensor = actual[name]
    if (!tensor) throw new Error(`the weights lack "${name}"`)
    if (tensor.dims.join() !== dims.join())
      throw new Error(`"${name}" is [${tensor.dims.join(', ')}], the model has [${dims.join(', ')}]`)
    if (!allFinite(tensor.data)) throw new Error(`"${name}" holds a value that is not finite`)
  }
  const extra = Object.keys(actual).find((name) => !expected[name])
  if (extra !== undefined) throw new Error(`the model has no trainable tensor "${extra}"`)
}
