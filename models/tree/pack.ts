/**
 * The token tree (DESIGN §3) as one sequence per image: prefix, prompts, completions in depth-first order. A token sees
 * itself and its ancestors; positions are depths along the path. Computing the packed tree equals computing every
 * sequence alone, while the image prefix and each prompt are computed once.
 */

/** A prompt under an image prefix and its (distinct) completions. */
export interface TreePrompt {
  readonly tokens: readonly number[]
  readonly completions: readonly (readonly number[])[]
}

export interface TreeRoot {
  /** Prompt tokens up to the end of the image. */
  readonly prefix: readonly number[]
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
  readonly positions: Int32Array
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

/** Packs the trees of a batch. `imageToken` marks the placeholders. Throws when a prompt path is empty. */
export function packTrees(roots: readonly TreeRoot[], imageToken: number, padToken = 0): PackedTree {
  const lengths = roots.map(packedLength)
  const length = Math.max(1, ...lengths)
  const size = roots.length * length
  const packed = {
    ids: new Int32Array(size).fill(padToken),
    positions: new Int32Array(size),
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
    const put = (tokens: readonly number[], depth: number, end: (start: number) => number): void => {
      const stop = end(at)
      tokens.forEach((token, i) => {
        packed.ids[base + at] = token
        packed.positions[base + at] = depth + i
        packed.ends[base + at] = stop
        at++
      })
    }
    put(root.prefix, 0, () => lengths[image]!)
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
      put(prompt.tokens, root.prefix.length, (start) => start + subtree)
      const depth = root.prefix.length + prompt.tokens.length
      if (depth === 0) throw new RangeError('a prompt needs at least one token before its completions')
      const last = base + (prompt.tokens.length > 0 ? at : root.prefix.length) - 1
      promptEnds.push(last)
      for (const completion of prompt.completions) {
        spans.push({ start: predictors.length, length: completion.length })
        completion.forEach((token, t) => {
          predictors.push(t === 0 ? last : base + at + t - 1)
          targets.push(token)
        })
        put(completion.slice(0, -1), depth, (start) => start + Math.max(0, completion.length - 1))
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
