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
  const packer = new Packer(roots.length, Math.max(1, ...lengths), axesOf(roots), padToken)
  roots.forEach((root, image) => packer.root(root, image, imageToken))
  return { ...packer.packed(), tokens: lengths.reduce((a, b) => a + b, 0) }
}

/** Position of the i-th of some tokens on an axis. */
type Place = (i: number, axis: number) => number

class Packer {
  readonly #size: number
  readonly #arrays: Pick<PackedTree, 'ids' | 'positions' | 'positionDims' | 'ends' | 'featureIndex'>
  readonly #predictors: number[] = []
  readonly #targets: number[] = []
  readonly #spans: { start: number; length: number }[] = []
  readonly #promptEnds: number[] = []
  /** Flat index of the next token. */
  #at = 0

  constructor(
    private readonly images: number,
    private readonly length: number,
    private readonly axes: number,
    padToken: number,
  ) {
    this.#size = images * length
    this.#arrays = {
      ids: new Int32Array(this.#size).fill(padToken),
      positions: new Int32Array(axes * this.#size),
      positionDims: axes === 1 ? [images, length] : [axes, images, length],
      ends: Int32Array.from({ length: this.#size }, (_, i) => (i % length) + 1),
      featureIndex: new Int32Array(this.#size).fill(-1),
    }
  }

  root(root: TreeRoot, image: number, imageToken: number): void {
    const { prefix, positions, prompts } = root
    const first = image * this.length
    this.#at = first
    const own = positions && ((i: number, axis: number) => positions.values[axis * prefix.length + i]!)
    this.#put(prefix, own ?? ((i) => i), packedLength(root))
    let feature = root.firstFeature
    prefix.forEach((token, i) => {
      if (token === imageToken) this.#arrays.featureIndex[first + i] = feature++
    })
    for (const prompt of prompts) this.#prompt(prompt, first + prefix.length - 1, positionBehind(root), first)
  }

  /** @param above flat index of the last token of the prefix, `first` − 1 where there is none. */
  #prompt({ tokens, completions }: TreePrompt, above: number, position: number, first: number): void {
    const subtree = packedLength({ prefix: tokens, prompts: [{ tokens: [], completions }], firstFeature: 0 })
    this.#put(tokens, (i) => position + i, subtree)
    const last = tokens.length > 0 ? this.#at - 1 : above
    if (last < first) throw new RangeError('a prompt needs at least one token before its completions')
    this.#promptEnds.push(last)
    for (const completion of completions) {
      this.#spans.push({ start: this.#predictors.length, length: completion.length })
      completion.forEach((token, t) => {
        this.#predictors.push(t === 0 ? last : this.#at + t - 1)
        this.#targets.push(token)
      })
      const read = completion.slice(0, -1)
      this.#put(read, (i) => position + tokens.length + i, read.length)
    }
  }

  /** Tokens one after the other; `descendants` counts them and all below them. */
  #put(tokens: readonly number[], place: Place, descendants: number): void {
    const { ids, positions, ends } = this.#arrays
    const end = (this.#at % this.length) + descendants
    tokens.forEach((token, i) => {
      ids[this.#at] = token
      for (let axis = 0; axis < this.axes; axis++) positions[axis * this.#size + this.#at] = place(i, axis)
      ends[this.#at] = end
      this.#at++
    })
  }

  packed(): Omit<PackedTree, 'tokens'> {
    return {
      images: this.images,
      length: this.length,
      ...this.#arrays,
      predictors: Int32Array.from(this.#predictors),
      targets: Int32Array.from(this.#targets),
      spans: this.#spans,
      promptEnds: this.#promptEnds,
    }
  }
}
