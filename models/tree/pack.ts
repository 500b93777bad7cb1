/**
 * The token tree (DESIGN §3) as one sequence per image: prefix, prompts, completions in depth-first order. A token sees
 * itself and its ancestors; positions are depths along the path, unless a prefix brings its own. Computing the packed tree
 * equals computing every sequence alone, while the image prefix and each prompt are computed once.
 */

/** A prompt under an image prefix and its (distinct) completions. */
export interface TreePrompt {
  readonly tokens: readonly number[]
  readonly completions: readonly (readonly number[])[]
}

/** Positions of a prefix where they are not its depths: with M-RoPE, three a token (temporal, vertical, horizontal). */
export interface PrefixPositions {
  readonly axes: 3
  /** int32 [axes, prefix] */
  readonly values: Int32Array
  /** Of the first token behind the prefix, on every axis; each later token of a path is one further. */
  readonly next: number
}

export interface TreeRoot {
  /** Prompt tokens up to the end of the image. */
  readonly prefix: readonly number[]
  /** Left out where they are the depths; the roots of one tree all have them or none does. */
  readonly positions?: PrefixPositions
  readonly prompts: readonly TreePrompt[]
  /** First row of this image's features; its placeholders take the rows in order. */
  readonly firstFeature: number
}

export interface PackedTree {
  readonly images: number
  /** Tokens per image, padded to the longest. */
  readonly length: number
  /** int32 [images, length] each; padding sees only itself and is seen by nobody. */
  readonly ids: Int32Array
  /** int32 of the shape `positionDims`: [images, length], or [3, images, length] where prefixes brought their own. */
  readonly positions: Int32Array
  readonly positionDims: readonly number[]
  readonly ends: Int32Array
  /** Row of the image features, −1 for text. */
  readonly featureIndex: Int32Array
  /** Predicted tokens in order of image, prompt, completion, token: flat index of the predicting token, and the target. */
  readonly predictors: Int32Array
  readonly targets: Int32Array
  /** First predicted token and length of every completion, in the same order. */
  readonly spans: readonly { readonly start: number; readonly length: number }[]
  /** Flat index of the last token of every prompt, in order of image and prompt. */
  readonly promptEnds: readonly number[]
  /** Tokens that are not padding. */
  readonly tokens: number
}

/** Number of packed tokens of one root: the last token of a completion is predicted but never read. */
export function packedLength(root: TreeRoot): number {
  return root.prompts.reduce(
    (n, p) => n + p.tokens.length + p.completions.reduce((m, c) => m + Math.max(0, c.length - 1), 0),
    root.prefix.length,
  )
}

/** Position of the first token behind the prefix. */
export const positionBehind = (root: {
  readonly prefix: readonly number[]
  readonly positions?: PrefixPositions | undefined
}): number => root.positions?.next ?? root.prefix.length

/** Numbers that a position is made of. Throws when the roots do not agree. */
export function axesOf(roots: readonly Pick<TreeRoot, 'positions'>[]): number {
  const axes = new Set(roots.map(({ positions }) => positions?.axes ?? 1))
  if (axes.size > 1) throw new RangeError('the prefixes of a batch must all bring positions, or none may')
  return [...axes][0] ?? 1
}

/** Packs the trees of a batch. `imageToken` marks the placeholders. Throws when a prompt path is empty. */
export function packTrees(roots: readonly TreeRoot[], imageToken: number, padToken = 0): PackedTree {
  const lengths = roots.map(packedLength)
  const length = Math.max(1, ...lengths)
  const size = roots.length * length
  const axes = axesOf(roots)
  const packed = {
    ids: new Int32Array(size).fill(padToken),
    positions: new Int32Array(axes * size),
    positionDims: axes === 1 ? [roots.length, length] : [axes, roots.length, length],
    ends: Int32Array.from({ length: size }, (_, i) => (i % length) + 1),
    featureIndex: new Int32Array(size).fill(-1),
  }
  const predictors: number[] = []
  const targets: number[] = []
  const spans: { start: number; length: number }[] = []
  const promptEnds: number[] = []
  roots.forEach((root, image) => {
    const base = image * length
    let at = 0
    const put = (
      tokens: readonly number[],
      position: (token: number, axis: number) => number,
      end: (start: number) => number,
    ): void => {
      const stop = end(at)
      tokens.forEach((token, i) => {
        packed.ids[base + at] = token
        for (let axis = 0; axis < axes; axis++) packed.positions[axis * size + base + at] = position(i, axis)
        packed.ends[base + at] = stop
        at++
      })
    }
    const from = (depth: number) => (i: number) => depth + i
    const { positions } = root
    const own = positions && ((i: number, axis: number) => positions.values[axis * root.prefix.length + i]!)
    put(root.prefix, own ?? from(0), () => lengths[image]!)
    const next = positionBehind(root)
    let feature = root.firstFeature
    root.prefix.forEach((token, i) => {
      if (token === imageToken) packed.featureIndex[base + i] = feature++
    })
    for (const prompt of root.prompts) {
      const subtree = packedLength({
        prefix: prompt.tokens,
        prompts: [{ tokens: [], completions: prompt.completions }],
        firstFeature: 0,
      })
      put(prompt.tokens, from(next), (start) => start + subtree)
      if (root.prefix.length + prompt.tokens.length === 0)
        throw new RangeError('a prompt needs at least one token before its completions')
      const last = base + (prompt.tokens.length > 0 ? at : root.prefix.length) - 1
      promptEnds.push(last)
      for (const completion of prompt.completions) {
        spans.push({ start: predictors.length, length: completion.length })
        completion.forEach((token, t) => {
          predictors.push(t === 0 ? last : base + at + t - 1)
          targets.push(token)
        })
        put(
          completion.slice(0, -1),
          from(next + prompt.tokens.length),
          (start) => start + Math.max(0, completion.length - 1),
        )
      }
    }
  })
  return {
    images: roots.length,
    length,
    ...packed,
    predictors: Int32Array.from(predictors),
    targets: Int32Array.from(targets),
    spans,
    promptEnds,
    tokens: lengths.reduce((a, b) => a + b, 0),
  }
}
