/** What a command writes: JSON lines on stdout with `--json`, else text on stdout; everything else on stderr. */
export interface Output {
  readonly json: boolean
  /** One JSON object on stdout with `--json`; nothing otherwise. */
  data(value: object): void
  /** One line for people on stdout without `--json`; nothing otherwise. */
  text(line: string): void
  /** One line for people on stderr, always. */
  note(line: string): void
}

/** `--json` also moves `console.log` of libraries to stderr, so that stdout holds nothing but JSON. */
export function createOutput(json: boolean): Output {
  if (json) console.log = console.error
  return {
    json,
    data: (value) => void (json && process.stdout.write(`${JSON.stringify(value)}\n`)),
    text: (line) => void (json || process.stdout.write(`${line}\n`)),
    note: (line) => void process.stderr.write(`${line}\n`),
  }
}
