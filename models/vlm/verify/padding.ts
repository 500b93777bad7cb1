/** Rows of token ids as the reference pads them. The product packs instead; only goldens look like this. */

export interface PaddedRows {
  readonly ids: number[][]
  /** 1 for tokens, 0 for padding. */
  readonly mask: number[][]
}

/** Positions of the tokens of one sequence, [axes, tokens]; axes are 1, or 3 with M-RoPE. */
export interface SequencePositions {
  readonly axes: number
  readonly values: ArrayLike<number>
}

const repeat = (value: number, count: number): number[] => new Array<number>(count).fill(value)

/**
 * Positions of padded rows, flat [axes, rows, width]. Padding has the position of the token before it (0 at the start),
 * with M-RoPE always 0.
 */
export function paddedPositions(
  mask: readonly (readonly number[])[],
  sequences: readonly SequencePositions[],
): number[] {
  const axes = sequences[0]?.axes ?? 1
  return Array.from({ length: axes }, (_, axis) =>
    mask.map((row, r) => {
      const { values } = sequences[r]!
      const own = Array.from({ length: values.length / axes }, (_, i) => values[axis * (values.length / axes) + i]!)
      let seen = 0
      return row.map((m) => (m === 1 ? own[seen++]! : axes === 1 ? (own[seen - 1] ?? 0) : 0))
    }),
  ).flat(2)
}

export function padLeft(rows: readonly (readonly number[])[], pad: number, width = longest(rows)): PaddedRows {
  return padded(rows, (row, fill) => [...repeat(fill, width - row.length), ...row], pad)
}

export function padRight(rows: readonly (readonly number[])[], pad: number, width = longest(rows)): PaddedRows {
  return padded(rows, (row, fill) => [...row, ...repeat(fill, width - row.length)], pad)
}

function padded(
  rows: readonly (readonly number[])[],
  fit: (row: readonly number[], fill: number) => number[],
  pad: number,
): PaddedRows {
  const mask = rows.map((row) => fit(repeat(1, row.length), 0))
  return { ids: rows.map((row) => fit(row, pad)), mask }
}

function longest(rows: readonly (readonly number[])[]): number {
  return Math.max(0, ...rows.map((row) => row.length))
}
