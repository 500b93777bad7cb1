/** Rotary position embedding (half-split, as in Llama), with one position a token or three (M-RoPE of Qwen2-VL). */
import { type Dims, product, type Value } from '../graph/graph.ts'
import { arange, concat, gather, reshape, rotary, slice } from '../graph/ops.ts'
import { f32 } from '../tensor.ts'
import type { TextArchitecture } from './text-config.ts'

/** Longest path that the rotary tables serve. */
const MAX_POSITIONS = 8192

/** Turns queries or keys [I, N, heads·headDim]. */
export type Turn = (x: Value, heads: number) => Value

/** Shape of the positions of [I, N] tokens: [I, N], or [3, I, N] (temporal, vertical, horizontal) with M-RoPE. */
export function positionDims({ mropeSection }: TextArchitecture, tokens: Dims): Dims {
  return mropeSection ? [3, ...tokens] : tokens
}

/** @param positions int32 of the shape `positionDims`. */
export function turnBy(text: TextArchitecture, positions: Value): Turn {
  const { graph } = positions
  const [cosTable, sinTable] = rotaryTables(text, MAX_POSITIONS)
  const [cos, sin] = [graph.constant(cosTable), graph.constant(sinTable)]
  if (!text.mropeSection) return (x, heads) => rotary(x, positions, cos, sin, heads)
  const [images, n] = [positions.dim(1), positions.dim(2)]
  const own = [cos, sin].map((table) => tableOfTokens(table, positions, text.mropeSection!))
  const row = reshape(arange(own[0]!, 0), [images, n])
  return (x, heads) => rotary(x, row, own[0]!, own[1]!, heads)
}

/** A row of angles for each token [I·N, headDim/2], its pairs taken from the rows of its three positions. */
function tableOfTokens(table: Value, positions: Value, section: readonly number[]): Value {
  const tokens = product([positions.dim(1), positions.dim(2)])
  let from = 0
  const parts = section.map((pairs, axis) => {
    const rows = gather(table, reshape(slice(positions, 0, axis, axis + 1), [tokens]))
    return slice(rows, -1, from, (from += pairs))
  })
  return concat(parts, -1)
}

/** cos and sin [positions, headDim/2] in float32 arithmetic, as transformers computes them. */
function rotaryTables({ headDim, ropeTheta }: TextArchitecture, positions: number) {
  const half = headDim / 2
  const cos = new Float32Array(positions * half)
  const sin = new Float32Array(positions * half)
  for (let d = 0; d < half; d++) {
    const frequency = Math.fround(1 / Math.fround(ropeTheta ** Math.fround((2 * d) / headDim)))
    for (let p = 0; p < positions; p++) {
      const angle = Math.fround(p * frequency)
      cos[p * half + d] = Math.cos(angle)
      sin[p * half + d] = Math.sin(angle)
    }
  }
  return [f32(cos, [positions, half]), f32(sin, [positions, half])] as const
}
