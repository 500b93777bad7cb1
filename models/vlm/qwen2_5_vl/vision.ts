/** Vision tower of Qwen2.5-VL (window attention, rotary places, patch merger) as graphs. */
import type { Graph, Value } from '../../graph/graph.ts'
import {
  add,
  arange,
  attention,
  broadcastTo,
  flatten2d,
  gather,
  gelu,
  less,
  linear,
  mul,
  reshape,
  rmsNorm,
  rotary,
  silu,
  slice,
  where,
} from '../../graph/ops.ts'
import { MASKED } from '../../layers/text.ts'
import type { Parameters } from '../../layers/parameters.ts'
import type { Picture, Vision, VisionInput } from '../family.ts'
import { pixelsOf } from '../tiles.ts'
import type { VisionConfig } from './config.ts'
import { gridInputs } from './grid-inputs.ts'
import { type Groups, visionFeeds, type VisionInputs } from './vision-inputs.ts'

export const VISION_PREFIX = 'model.visual'
/** Of every norm of the tower; no configuration has another. */
const RMS_EPS = 1e-6

/** The vision tower of a configuration; a pass has one picture, so that its features do not depend on others. */
export function qwen25VlVision(vision: VisionConfig): Vision {
  const join = (pictures: readonly Picture[]): VisionInput => ({
    graph: pictures.length === 1 ? 'one' : 'several',
    feeds: visionFeeds(
      vision,
      pictures.map((picture) => ({ grid: picture.layout, pixels: pixelsOf(picture) })),
    ),
  })
  return {
    join,
    passes: (pictures) => pictures.map((picture) => join([picture])),
    features: (params, { graph }) =>
      visionTower(params, vision, visionInputs(params.graph, vision, graph === 'one' ? 'one' : 'several')),
    encoder: (params) => {
      const { inputs, about } = gridInputs(params.graph, vision)
      return { features: visionTower(params, vision, inputs), inputs: about }
    },
  }
}

/**
 * Features of the image tokens of pictures of any sizes.
 *
 * @returns float32 [F, hidden of the text model], in the order of the image placeholders.
 */
function visionTower(params: Parameters, vision: VisionConfig, inputs: VisionInputs): Value {
  const size = 3 * vision.temporalPatch * vision.patch ** 2
  const kernel = reshape(params.weight(`${VISION_PREFIX}.patch_embed.proj.weight`), [vision.hidden, size])
  let x = linear(inputs.pixels, kernel)
  for (let layer = 0; layer < vision.layers; layer++) {
    const groups = vision.fullAttention.includes(layer) ? inputs.pictures : inputs.windows
    const before = x
    const block = () => visionBlock(params, vision, `${VISION_PREFIX}.blocks.${layer}`, before, groups, inputs)
    x = params.graph.segment([before], block)
  }
  return patchMerger(params, vision, x)
}

/**
 * The inputs of `visionFeeds` as graph inputs.
 *
 * @param pictures with `one`, the scores among all its patches are never held, unless a gradient needs them.
 */
function visionInputs(graph: Graph, vision: VisionConfig, pictures: 'one' | 'several'): VisionInputs {
  const perToken = vision.merge ** 2
  const half = vision.hidden / vision.heads / 2
  const size = 3 * vision.temporalPatch * vision.patch ** 2
  const table = (name: string) => graph.input(name, 'float32', [`${perToken}*F`, half])
  return {
    pixels: graph.input('pixels', 'float32', ['F', perToken, size]),
    cos: table('cos'),
    sin: table('sin'),
    windows: groupInputs(graph, 'window', ['W', 'S'], perToken, false),
    pictures: groupInputs(graph, 'picture', ['B', 'L'], perToken, pictures === 'one'),
  }
}

function groupInputs(
  graph: Graph,
  name: string,
  [groups, longest]: readonly [string, string],
  perToken: number,
  full: boolean,
): Groups {
  const members = graph.input(`${name}Members`, 'int32', [groups, longest])
  const cells = graph.input(`${name}Cells`, 'int32', ['F', perToken])
  if (full) return { members, bias: null, cells }
  const sizes = reshape(graph.input(`${name}Sizes`, 'int32', [groups]), [groups, 1])
  const bias = where(less(reshape(arange(members, 1), [1, longest]), sizes), 0, MASKED)
  return { members, bias: broadcastTo(reshape(bias, [groups, 1, longest]), [groups, longest, longest]), cells }
}

/** x [F, m, D] */
function visionBlock(
  params: Parameters,
  vision: VisionConfig,
  name: string,
  x: Value,
  groups: Groups,
  inputs: VisionInputs,
): Value {
  const norm = (part: string, y: Value) => rmsNorm(y, params.weight(`${name}.${part}.weight`), RMS_EPS)
  const h = add(x, groupAttention(params, vision, `${name}.attn`, norm('norm1', x), groups, inputs))
  const z = norm('norm2', h)
  const gate = silu(params.linear(`${name}.mlp.gate_proj`, z, true))
  return add(h, params.linear(`${name}.mlp.down_proj`, mul(gate, params.linear(`${name}.mlp.up_proj`, z, true)), true))
}

/** Attention inside each group: patches are brought together by group, and back to their places. */
function groupAttention(
  params: Parameters,
  { hidden, heads }: VisionConfig,
  name: string,
  x: Value,
  { members, bias, cells }: Groups,
  { cos, sin }: VisionInputs,
): Value {
  const qkv = gather(flatten2d(params.linear(`${name}.qkv`, x, true)), members)
  const part = (i: number) => slice(qkv, -1, i * hidden, (i + 1) * hidden)
  const turn = (y: Value) => rotary(y, members, cos, sin, heads)
  const mixed = attention(turn(part(0)), turn(part(1)), part(2), bias, { heads, kvHeads: heads })
  return params.linear(`${name}.proj`, gather(flatten2d(mixed), cells), true)
}

/** The patches of an image token side by side, through two layers with an exact GELU: [F, m, D] → [F, hidden]. */
function patchMerger(params: Parameters, { hidden, merge }: VisionConfig, x: Value): Value {
  const name = `${VISION_PREFIX}.merger`
  const normed = rmsNorm(x, params.weight(`${name}.ln_q.weight`), RMS_EPS)
  const wide = reshape(normed, [x.dim(0), merge ** 2 * hidden])
  return params.linear(`${name}.mlp.2`, gelu(params.linear(`${name}.mlp.0`, wide, true)), true)
}
