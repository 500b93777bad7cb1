/** Where in a checkpoint something is wrong. */
export interface CheckpointErrorPlace {
  readonly file: string
  readonly tensor?: string
  readonly cause?: unknown
}

/**
 * A checkpoint file that cannot be read, written or trusted. Names the file and, where there is one, the tensor; the
 * message is one line, whatever a hostile file puts into its names.
 */
export class CheckpointError extends Error {
  readonly file: string
  readonly tensor: string | undefined

  constructor(reason: string, place: CheckpointErrorPlace) {
    const file = printable(place.file, 1000)
    const where = place.tensor === undefined ? file : `${file}, tensor "${printable(place.tensor, 120)}"`
    super(`${where}: ${printable(reason, 2000)}`, place.cause === undefined ? undefined : { cause: place.cause })
    this.name = 'CheckpointError'
    this.file = place.file
    this.tensor = place.tensor
  }
}

/** Text of a file on one line, without control characters, cut in its middle when it is longer than `most`. */
export function printable(text: string, most: number): string {
  const half = Math.floor(most / 2)
  const cut = text.length <= most ? text : `${text.slice(0, half)} … ${text.slice(-half)}`
  return cut.replaceAll(/\s*[\u0000-\u001f\u007f-\u009f\u2028\u2029]+\s*/g, ' ').trim()
}
