/** Sizes of a Llama-style text model, whatever its family. */
export interface TextConfig {
  readonly hiddenSize: number
  readonly layers: number
  readonly heads: number
  readonly kvHeads: number
  readonly headDim: number
  readonly intermediate: number
  readonly vocab: number
  readonly rmsEps: number
  readonly ropeTheta: number
  /** The output projection is the token embedding. */
  readonly tied: boolean
}

/** The text model of a checkpoint. */
export interface TextArchitecture extends TextConfig {
  /** Root of the names of its weights, e.g. `model.text_model`. */
  readonly prefix: string
  /** Whether the projections of queries, keys and values have a bias. */
  readonly attentionBias: boolean
  /**
   * M-RoPE: how many of the `headDim / 2` rotated pairs turn by the temporal, the vertical and the horizontal position.
   * null: every pair turns by the one position of the token.
   */
  readonly mropeSection: readonly [number, number, number] | null
}
