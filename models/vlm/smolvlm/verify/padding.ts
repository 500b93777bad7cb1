/** Rows of token ids as the reference pads them. The product packs instead; only goldens look like this. */

export interface PaddedRows {
  readonly ids: number[][]
  /** 1 for tokens, 0 for padding. */
  readonly mask: number[][]
  readonly positions: number[][]
}

const repeat = (value: number, count: number): number[] => new Array<number>(count).fill(value)

/** Number of tokens so far − 1, at least 0: what padding gets as well. */
export function positionsOf(mask: readonly number[]): number[] {
  let seen = 0
  return mask.map((m) => Math.max(0, (seen += m) - 1))
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
  return { ids: rows.map((row) => fit(row, pad)), mask, positions: mask.map(positionsOf) }
}

function longest(rows: readonly (readonly number[])[]): number {
  return Math.max(0, ...rows.map((row) => row.length))
}
