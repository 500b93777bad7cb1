/** Where in a checkpoint something is wrong. */
export interface CheckpointErrorPlace {
  readonly file: string
  readonly tensor?: string
  readonly cause?: unknown
}

/** A checkpoint file that cannot be read, written or trusted. Names the file and, where there is one, the tensor. */
export class CheckpointError extends Error {
  readonly file: string
  readonly tensor: string | undefined

  constructor(reason: string, place: CheckpointErrorPlace) {
    const where = place.tensor === undefined ? place.file : `${place.file}, tensor "${place.tensor}"`
    super(`${where}: ${reason}`, place.cause === undefined ? undefined : { cause: place.cause })
    this.name = 'CheckpointError'
    this.file = place.file
    this.tensor = place.tensor
  }
}
