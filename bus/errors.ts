/** Errors that every carrier of the bus throws. A blob's error, `BlobError`, is part of the contract in bus.ts. */

/** The bus was closed (or its process crashed, in a simulation) while an operation was wanted or under way. */
export class BusClosedError extends Error {
  override name = 'BusClosedError'
  constructor(by: string) {
    super(`the bus of ${by} is closed: connect again to go on`)
  }
}

/** Bytes that are not a message of this project; names the subject and what to do. */
export class MessageError extends Error {
  override name = 'MessageError'
  constructor(
    readonly subject: string,
    problem: string,
    options?: ErrorOptions,
  ) {
    super(`message on ${subject}: ${problem}`, options)
  }
}

/** A delivery was settled twice: ack, retry or fail may be called once. */
export class SettledError extends Error {
  override name = 'SettledError'
  constructor(kind: string, id: string) {
    super(`task ${kind} ${id} is already settled: call exactly one of ack, retry and fail`)
  }
}
