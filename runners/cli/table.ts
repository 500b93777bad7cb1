/** Lines of a table under a blank line; none without rows. Numbers to the right. */
export function table(head: readonly string[], rows: readonly (readonly (string | number)[])[]): string[] {
  if (rows.length === 0) return []
  const cells = [head, ...rows].map((row) => row.map(String))
  const widths = head.map((_, c) => Math.max(...cells.map((row) => row[c]!.length)))
  const isNumber = head.map((_, c) => cells.slice(1).every((row) => /^-?[\d.]*$/.test(row[c]!)))
  const line = (row: readonly string[]) =>
    row.map((cell, c) => (isNumber[c] ? cell.padStart(widths[c]!) : cell.padEnd(widths[c]!))).join('  ')
  return ['', ...cells.map((row) => `  ${line(row)}`.trimEnd())]
}
